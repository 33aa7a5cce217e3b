//! Wrong usage: what the reader of the command line refuses, in the four parts that are printed, and the values that
//! flags may have.
//!
//! The rule: a word that is wrong by itself is wrong usage, exit code 2. A good word for something that is not there
//! (a file, a job, a machine) is a failure, exit code 1.

use crate::output::Failure;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::error::Error;
use std::num::ParseIntError;

pub fn failure_of(usage: &clap::Error) -> Failure {
    let part = |kind| match usage.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    let first_of = |kinds: &[ContextKind]| kinds.iter().map(|kind| part(*kind)).find(|text| !text.is_empty());
    let place = first_of(&[ContextKind::InvalidArg, ContextKind::InvalidSubcommand]).unwrap_or_else(|| command(usage));
    let suggested = first_of(&[
        ContextKind::SuggestedArg,
        ContextKind::SuggestedSubcommand,
        ContextKind::ValidValue,
        ContextKind::ValidSubcommand,
    ]);
    let in_help = |what: &str| format!("{what} as in `{} --help`", command(usage));
    let (expected, got) = match usage.kind() {
        ErrorKind::InvalidValue if part(ContextKind::InvalidValue).is_empty() => ("a value".into(), "none".into()),
        ErrorKind::InvalidValue => (suggested.unwrap_or_else(|| in_help("a value")), part(ContextKind::InvalidValue)),
        ErrorKind::ValueValidation => (allowed(usage), part(ContextKind::InvalidValue)),
        ErrorKind::UnknownArgument => (suggested.unwrap_or_else(|| in_help("an option")), place.clone()),
        ErrorKind::InvalidSubcommand => (suggested.unwrap_or_else(|| in_help("a command")), place.clone()),
        ErrorKind::MissingRequiredArgument => ("this argument".into(), "none".into()),
        ErrorKind::ArgumentConflict => ("one of two".into(), format!("{place} and {}", part(ContextKind::PriorArg))),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            (suggested.unwrap_or_else(|| in_help("a command")), "none".into())
        }
        _ => (in_help("usage"), first_line(usage)),
    };
    Failure::usage(place, expected, got)
}

/// What the reader of a value said that it takes.
fn allowed(usage: &clap::Error) -> String {
    let Some(source) = usage.source() else { return "another value".into() };
    if source.is::<ParseIntError>() {
        return "a whole number of at least 0".into();
    }
    let said = source.to_string();
    said.rsplit_once(" is not in ").map_or(said.clone(), |(_, range)| range.replace("..=", " to "))
}

/// The command that was asked for, as far as it was understood: `littoral job`.
fn command(usage: &clap::Error) -> String {
    let text = usage.to_string();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Usage: ")).unwrap_or("littoral");
    line.split(' ').take_while(|word| !word.starts_with(['[', '<', '-'])).collect::<Vec<_>>().join(" ")
}

fn first_line(usage: &clap::Error) -> String {
    usage.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// A text of 1 to 64 bytes that is not blank.
pub fn name(text: &str) -> Result<String, String> {
    match text.trim().is_empty() || text.len() > 64 || text.chars().any(char::is_control) {
        true => Err("1 to 64 bytes without control characters that are not all blank".into()),
        false => Ok(text.to_owned()),
    }
}

/// `host:port`.
pub fn host_port(text: &str) -> Result<String, String> {
    let port =
        text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
    port.map(|_| text.to_owned()).ok_or_else(|| "host:port".into())
}

/// A share of a whole: at least 0 and below 1.
pub fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..1.0).contains(share));
    share.ok_or_else(|| "a share of at least 0 and below 1".into())
}
