//! An administrator redirects a node's data through the coordinator, or stops that; the node itself or another is asked.
//!
//! Refused on the coordinator: its data would take the same way to the same disk. One that was redirected and becomes
//! coordinator later stays as it is, which does no harm.

use std::sync::Arc;
use std::time::Duration;

use super::node::{NodeParts, node_id};
use super::talk::NodeTalk;
use crate::api::Node;
use crate::exit::{Exit, Failure};

/// How long another node may take to answer a command that was passed on.
const PASS_ON_WITHIN: Duration = Duration::from_secs(5);

impl NodeParts {
    /// Redirects the data of a node.
    pub(super) async fn redirect(self: &Arc<Self>, name: String, on: bool, node: Node) -> Result<(), Failure> {
        if node == self.bundle.node {
            return self.redirect_here(&name, on);
        }
        self.is_a_node(node)?;
        let talk = NodeTalk::Redirect { name, on };
        match self.talk(node_id(node), &talk, PASS_ON_WITHIN).await {
            Some(NodeTalk::Done(done)) => done,
            _ => Err(Failure::failed(
                format!("{node} did not answer."),
                "See `shorefast node list`; or give the command on that node.",
            )),
        }
    }

    /// Redirects the data of this node.
    pub(super) fn redirect_here(&self, name: &str, on: bool) -> Result<(), Failure> {
        let volume = self.running(name)?;
        if on && volume.office().coordinator == Some(self.me()) {
            return Err(Failure::failed(
                format!("{} is the coordinator of {name}: its data would only go through itself.", self.bundle.node),
                format!(
                    "Redirect another node, or move the coordinator first: `shorefast volume move {name} --to NODE`."
                ),
            ));
        }
        volume.redirect(on);
        Ok(())
    }

    /// Refuses a node that the cluster does not have.
    pub(super) fn is_a_node(&self, node: Node) -> Result<(), Failure> {
        if self.list.read().has(node) {
            return Ok(());
        }
        Err(Failure::new(
            Exit::NotFound,
            format!("There is no {node} in this cluster."),
            "`shorefast node list` shows the nodes.",
        ))
    }
}
