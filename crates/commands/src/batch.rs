use bytes::Bytes;
use domain::InvalidFields;
use sha2::{Digest, Sha256};
use tokio::task::yield_now;
use uuid::Uuid;

use crate::executor::Executor;
use crate::identity::{IdentityFrom, command_id_of_key_and_index, fingerprint_of};
use crate::line::{self, Line};
use crate::outcome::{Accepted, ExecuteError};
use crate::parse_error::{COMMANDS_MAX, ParseError};
use crate::request::Caller;
use crate::split;

/// After so many commands parsed, other tasks of the runtime run.
const PARSED_BETWEEN_YIELDS: usize = 256;

/// Many commands in one request, parsed: each is right or wrong on its own.
#[derive(Debug)]
pub struct Batch(Vec<Parsed>);

/// A command as it was sent, and what came of parsing it.
#[derive(Debug)]
struct Parsed {
    text: Bytes,
    line: Result<Line, ParseError>,
}

/// Why a command of a batch was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandError {
    /// It is wrong in itself.
    Parse(ParseError),
    /// It could not be carried out; where its identity came from.
    Execute(ExecuteError, IdentityFrom),
}

impl Batch {
    /// `{"commands": [...]}`
    ///
    /// # Errors
    /// It is not such an object, or has no command or too many.
    pub async fn from_json(body: &Bytes) -> Result<Self, ParseError> {
        Self::parse(split::commands(body, COMMANDS_MAX)?).await
    }

    /// A command a line.
    ///
    /// # Errors
    /// There is no command, or too many.
    pub async fn from_lines(body: &Bytes) -> Result<Self, ParseError> {
        Self::parse(split::lines(body, COMMANDS_MAX)).await
    }

    async fn parse(commands: Vec<Bytes>) -> Result<Self, ParseError> {
        if commands.is_empty() {
            let mut invalid = InvalidFields::default();
            invalid.breaks_rule("/commands", "must have at least one command");
            return Ok(invalid.or(None)?);
        }
        if commands.len() > COMMANDS_MAX {
            return Err(ParseError::TooManyCommands);
        }
        let mut parsed = Vec::with_capacity(commands.len());
        for text in commands {
            let line = line::parse(&text);
            parsed.push(Parsed { text, line });
            if parsed.len().is_multiple_of(PARSED_BETWEEN_YIELDS) {
                yield_now().await;
            }
        }
        Ok(Self(parsed))
    }

    /// How many commands it has.
    #[must_use]
    pub fn command_count(&self) -> usize {
        self.0.len()
    }

    /// Of the whole batch: of its commands as JSON and in order; of what is not a command, as it was sent.
    #[must_use]
    pub fn fingerprint(&self) -> Uuid {
        let mut hash = Sha256::new();
        for Parsed { text, line } in &self.0 {
            match line {
                Ok(line) => {
                    hash.update([1, u8::from(line.command_id.is_some())]);
                    hash.update(line.command_id.map_or(Uuid::nil(), |id| id.0));
                    hash.update(line.fingerprint);
                }
                Err(_) => {
                    hash.update([0]);
                    hash.update((text.len() as u64).to_be_bytes());
                    hash.update(text);
                }
            }
        }
        fingerprint_of(hash)
    }

    /// Carries out its commands: each on its own, in order per task. An outcome for each, in order. Under a `key` those
    /// without an id of their own have one made from it; without one, its change counts as being made until the end.
    pub async fn execute(
        self,
        executor: &Executor,
        caller: &Caller,
        key: Option<&str>,
    ) -> Vec<Result<Accepted, CommandError>> {
        let mut requests = Vec::with_capacity(self.0.len());
        let mut parsed = Vec::with_capacity(self.0.len());
        for (index, Parsed { line, .. }) in self.0.into_iter().enumerate() {
            parsed.push(line.map(|line| {
                if line.command_id.is_some() {
                    requests.push(line.request(None));
                    IdentityFrom::CommandId
                } else {
                    requests.push(line.request(key.map(|key| command_id_of_key_and_index(key, index))));
                    IdentityFrom::IdempotencyKey
                }
            }));
        }
        let count = requests.len();
        // Those to one task are one append.
        let is_one_append = requests.windows(2).all(|pair| pair[0].task_id == pair[1].task_id);
        let work = executor.execute_all(caller, requests);
        let outcomes = if key.is_some() || is_one_append {
            work.await
        } else {
            executor.make_change(caller, work).await.unwrap_or_else(|error| vec![Err(error); count])
        };
        let mut outcomes = outcomes.into_iter();
        let outcome = |parsed: Result<IdentityFrom, ParseError>| {
            let identity_from = parsed.map_err(CommandError::Parse)?;
            // There is an outcome for each request.
            let outcome = outcomes.next().unwrap_or(Err(ExecuteError::Failed));
            outcome.map_err(|error| CommandError::Execute(error, identity_from))
        };
        parsed.into_iter().map(outcome).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(commands: &[&'static str]) -> Uuid {
        let parsed = |text: &&'static str| Parsed {
            text: Bytes::from_static(text.as_bytes()),
            line: line::parse(text.as_bytes()),
        };
        Batch(commands.iter().map(parsed).collect()).fingerprint()
    }

    #[test]
    fn batches_are_compared_command_by_command() {
        let start = r#"{"type":"StartTask","task_id":"01932c6e-7d3b-7cc1-a5ad-0242ac120002"}"#;
        let spaced = r#"{ "task_id":"01932c6e-7d3b-7cc1-a5ad-0242ac120002", "type":"StartTask" }"#;
        let with_id = r#"{"type":"StartTask","task_id":"01932c6e-7d3b-7cc1-a5ad-0242ac120002","command_id":"01932c6e-7d3b-7cc1-a5ad-0242ac120002"}"#;
        assert!(line::parse(start.as_bytes()).is_ok() && line::parse(with_id.as_bytes()).is_ok());
        assert_eq!(fingerprint(&[start]), fingerprint(&[spaced]));
        assert_ne!(fingerprint(&[start]), fingerprint(&[with_id]));
        assert_ne!(fingerprint(&[start]), fingerprint(&[start, start]));
        assert_ne!(fingerprint(&[start, "{"]), fingerprint(&["{", start]));
        assert_ne!(fingerprint(&["{"]), fingerprint(&["{{"]));
    }
}
