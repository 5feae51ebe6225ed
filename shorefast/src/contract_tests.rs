//! Holds docs/contract.md to the program: commands, exit codes, configuration keys, routes.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::api::Route;
use crate::cli::Cli;
use crate::docs_test::block_holds;
use crate::exit::Exit;

const PAGE: &str = "docs/contract.md";

/// Every command that can be run, on a line of its own, in the order of the command tree; without `help`, which every tree has.
fn command_lines() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = String::new();
    walk(&root, "shorefast", &mut text);
    text
}

fn walk(command: &Command, path: &str, text: &mut String) {
    let visible: Vec<&Command> =
        command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help").collect();
    if visible.is_empty() {
        let arguments: Vec<String> = command.get_arguments().filter(|a| is_own(a)).map(argument).collect();
        let line = [path.to_owned()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ");
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(text, "{line:<84} # {about}").expect("writing to a string");
    }
    for sub in visible {
        walk(sub, &format!("{path} {}", sub.get_name()), text);
    }
}

/// Not one of every command's options.
fn is_own(arg: &Arg) -> bool {
    !arg.is_global_set() && !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str())
}

/// `NAME`, `--disk URL...`, `[--force]`.
fn argument(arg: &Arg) -> String {
    let value = arg.get_value_names().and_then(|v| v.first()).map_or_else(String::new, ToString::to_string);
    let mut shown = match (arg.get_long(), matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)) {
        (Some(long), true) => format!("--{long} {value}"),
        (Some(long), false) => format!("--{long}"),
        (None, _) => value.to_string(),
    };
    if matches!(arg.get_action(), ArgAction::Append) {
        shown.push_str("...");
    }
    if arg.is_required_set() { shown } else { format!("[{shown}]") }
}

#[test]
fn contract_lists_the_commands_of_the_program() {
    block_holds(PAGE, "commands", &command_lines());
}

#[test]
fn contract_lists_the_exit_codes_of_the_program() {
    let text: String = Exit::ALL.iter().map(|e| format!("{} {}\n", e.code(), e.meaning())).collect();
    block_holds(PAGE, "exit-codes", &text);
}

#[test]
fn contract_lists_the_configuration_keys_of_the_program() {
    block_holds(PAGE, "toml", crate::config::TEMPLATE);
}

#[test]
fn contract_spells_the_routes_as_the_program_does() {
    let names: Vec<&str> = Route::ALL.iter().map(|r| r.as_str()).collect();
    block_holds(PAGE, "routes", &format!("{}\n", names.join(" ")));
}
