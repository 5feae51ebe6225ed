//! What nodes say to one another about volumes, as JSON inside [`csv_fs::proto::PeerAsk::Node`].

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::checking::Job;
use super::members::List;
use super::minors::OPERATORS;
use super::moving::Eligible;
use super::node::NodeParts;
use super::records::Record;
use super::told::Told;
use crate::api::{Node, Progress};
use crate::exit::{Exit, Failure};

/// A planned move drains the coordinator first; after this it is reported as failed.
const MOVE_WITHIN: Duration = Duration::from_secs(20);

/// A question or an answer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum NodeTalk {
    /// What I remember; answered with [`NodeTalk::Records`].
    Exchange(Vec<Record>),
    /// What I remember.
    Records(Vec<Record>),
    /// Redirect your data of that volume, or stop that.
    Redirect {
        /// The volume's name.
        name: String,
        /// Start or stop.
        on: bool,
    },
    /// Hand the office of that volume over.
    Move {
        /// The volume's name.
        name: String,
        /// To whom.
        to: Node,
    },
    /// Whether that was done.
    Done(Result<(), Failure>),
    /// May you hold the office of that volume? Answered with [`NodeTalk::Office`].
    MayHold {
        /// The volume's name.
        name: String,
    },
    /// Whether I may.
    Office(Eligible),
    /// How is my check of that volume? Begins it, if the number is new. Answered with [`NodeTalk::CheckJob`].
    Check {
        /// The volume's name.
        name: String,
        /// The number that the asker gave it.
        job: u64,
    },
    /// How it is.
    CheckJob(Job),
    /// How are the volumes you know? Answered with [`NodeTalk::Routes`].
    AskRoutes,
    /// My word about each.
    Routes(Vec<Told>),
    /// How are the volumes you know, and you yourself? Answered with [`NodeTalk::Words`]. Since [`OPERATORS`], as all below.
    AskWords,
    /// My word about each, and me.
    Words {
        /// About each.
        told: Vec<Told>,
        /// Whether I am drained.
        drained: bool,
    },
    /// Be drained, or be back in service.
    Drain {
        /// Which of both.
        on: bool,
    },
    /// Could you go by this list of nodes?
    PrepareList(List),
    /// Go by this list of nodes.
    TakeList(List),
}

impl NodeTalk {
    /// The minor version that brought it.
    fn since(&self) -> u16 {
        match self {
            NodeTalk::AskWords
            | NodeTalk::Words { .. }
            | NodeTalk::Drain { .. }
            | NodeTalk::PrepareList(_)
            | NodeTalk::TakeList(_) => OPERATORS,
            _ => 0,
        }
    }
}

impl NodeParts {
    /// Answers what a peer said.
    pub(super) async fn talked_to(self: &Arc<Self>, body: &[u8]) -> NodeTalk {
        let not_understood =
            |said: String| NodeTalk::Done(Err(Failure::usage(said, "Bring both nodes to the same version.")));
        match serde_json::from_slice::<NodeTalk>(body) {
            // As the release before would say.
            Ok(talk) if talk.since() > self.minors.newest() => not_understood("That message is not known here.".into()),
            Ok(NodeTalk::Exchange(theirs)) => match self.take_records(theirs).await {
                Ok(()) => NodeTalk::Records(self.records.to_tell()),
                Err(e) => NodeTalk::Done(Err(e)),
            },
            Ok(NodeTalk::Redirect { name, on }) => NodeTalk::Done(self.redirect_here(&name, on)),
            Ok(NodeTalk::Move { name, to }) => NodeTalk::Done(self.moved(&name, to).await),
            Ok(NodeTalk::MayHold { name }) => NodeTalk::Office(self.eligible(&name)),
            Ok(NodeTalk::Check { name, job }) => {
                self.job(&name, job).await.map_or_else(|e| NodeTalk::Done(Err(e)), NodeTalk::CheckJob)
            }
            Ok(NodeTalk::AskRoutes) => NodeTalk::Routes(self.own_word()),
            Ok(NodeTalk::AskWords) => NodeTalk::Words { told: self.own_word(), drained: self.drain.is_on() },
            Ok(NodeTalk::Drain { on: true }) => {
                let (unheard, _) = Progress::channel();
                NodeTalk::Done(self.drain_here(&unheard).await)
            }
            Ok(NodeTalk::Drain { on: false }) => NodeTalk::Done(self.resume_here().await),
            Ok(NodeTalk::PrepareList(list)) => {
                let fits = self.may_take(&list).await;
                NodeTalk::Done(
                    fits.map_err(|why| Failure::new(Exit::Refused, format!("{why}."), "Put that right there.")),
                )
            }
            Ok(NodeTalk::TakeList(list)) => NodeTalk::Done(self.take_list(list).await),
            Ok(
                NodeTalk::Records(_)
                | NodeTalk::Done(_)
                | NodeTalk::Office(_)
                | NodeTalk::Routes(_)
                | NodeTalk::Words { .. }
                | NodeTalk::CheckJob(_),
            ) => not_understood("An answer came as a question.".into()),
            Err(e) => not_understood(format!("A peer's message does not parse: {e}.")),
        }
    }

    /// Hands the office over on behalf of another node.
    async fn moved(self: &Arc<Self>, name: &str, to: Node) -> Result<(), Failure> {
        self.hand_over(&*self.running(name)?, to, MOVE_WITHIN).await
    }
}
