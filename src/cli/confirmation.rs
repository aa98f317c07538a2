//! Confirmation of a command by its operator: on the terminal, or with `--yes COUNT`.

use std::io::{BufRead as _, BufReader, IsTerminal as _};

use super::failure::Failure;
use super::terminal::to_stderr;
use crate::sanitize;
use crate::source::stdin;

/// What the operator confirms.
pub(super) struct Confirmation<'a> {
    pub(super) count: usize,
    /// What is counted, such as "requests".
    pub(super) counted: &'a str,
    /// Can be typed instead of the count.
    pub(super) id: &'a str,
    /// What the command does then, such as "revoke".
    pub(super) verb: &'a str,
    /// State after a refusal, such as "nothing was requested".
    pub(super) refused: &'a str,
}

impl Confirmation<'_> {
    /// The operator types the count or the id, or has given the count with `--yes`.
    pub(super) fn obtain(&self, yes: Option<usize>) -> Result<(), Failure> {
        let Self { count, counted, id, verb, refused } = self;
        match yes {
            Some(yes) if yes == *count => return Ok(()),
            Some(yes) => {
                let problem = format!("--yes {yes}, but the number of {counted} is {count}; {refused}");
                return Err(Failure::Usage(problem));
            }
            None => {}
        }
        let unread = |error| Failure::Usage(format!("cannot read the answer: {error}; {refused}"));
        let terminal = stdin::open().map_err(unread)?;
        if !terminal.is_terminal() {
            let problem = format!("no terminal to confirm on; {refused}. To confirm, add --yes {count}");
            return Err(Failure::Usage(problem));
        }
        let question = format!("Type {count}, the number of {counted}, or {id}, the id, to {verb}:");
        to_stderr(&sanitize::line(&question));
        let mut typed = String::new();
        BufReader::new(terminal).read_line(&mut typed).map_err(unread)?;
        if self.is_given_by(typed.trim_end_matches('\n')) {
            return Ok(());
        }
        Err(Failure::Usage(format!("not confirmed; {refused}")))
    }

    fn is_given_by(&self, typed: &str) -> bool {
        typed.trim() == self.count.to_string() || typed == self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_or_id_confirms() {
        let confirmation = Confirmation {
            count: 12,
            counted: "requests",
            id: "ana ",
            verb: "revoke",
            refused: "nothing was requested",
        };
        for (typed, expected) in
            [("12", true), (" 12 ", true), ("ana ", true), ("ana", false), ("", false), ("y", false)]
        {
            assert_eq!(confirmation.is_given_by(typed), expected, "{typed:?}");
        }
        assert!(confirmation.obtain(Some(12)).is_ok());
        let refused = confirmation.obtain(Some(11)).expect_err("another number").to_string();
        assert_eq!(refused, "--yes 11, but the number of requests is 12; nothing was requested");
    }
}
