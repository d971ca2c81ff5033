//! An event as a message: CloudEvents 1.0 in Kafka binary mode. The attributes are headers `ce_…`, the payload is the
//! event's data, the key its owner. `docs/asyncapi.yaml` describes it to others.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use domain::{OwnerId, StoredEvent, TaskId, Time, format_time, parse_time};
use uuid::Uuid;

const SPEC_VERSION: &str = "1.0";
const CONTENT_TYPE: &str = "application/json";

/// An event with what the relay adds to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The event.
    pub event: StoredEvent,
    /// The log that it stands in.
    pub log_id: Uuid,
    /// Number of the publication: 1, 2, 3 …; `primetrade republish` begins a new one.
    pub publication: i64,
    /// Position of the message before it of the same shard in the same partition; 0: none.
    pub previous_position: i64,
}

/// A message that is not one of ours, or is broken: why, and what of it could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unreadable {
    /// What is wrong with it.
    pub reason: String,
    /// The log that it says it is from.
    pub log_id: Option<Uuid>,
    /// The shard.
    pub shard: Option<i16>,
    /// The position.
    pub position: Option<i64>,
    /// The position of the message before it.
    pub previous_position: Option<i64>,
    /// The publication.
    pub publication: Option<i64>,
    /// The owner, by the header; else by the key.
    pub owner_id: Option<OwnerId>,
    /// The task.
    pub task_id: Option<TaskId>,
    /// The version.
    pub version: Option<i64>,
    /// The event's id.
    pub event_id: Option<Uuid>,
    /// The event's type.
    pub event_type: Option<String>,
    /// The payload as text; what is not UTF-8, and NUL, as U+FFFD.
    pub payload: String,
}

impl Message {
    /// The message's key: who shares one shares a partition.
    #[must_use]
    pub fn key(&self) -> String {
        self.event.owner_id.to_string()
    }

    /// The message's headers. Its payload is the event's data.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, Cow<'_, str>)> {
        let event = &self.event;
        let mut headers: Vec<(&'static str, Cow<'_, str>)> = vec![
            ("content-type", CONTENT_TYPE.into()),
            ("ce_specversion", SPEC_VERSION.into()),
            ("ce_id", event.event_id.to_string().into()),
            ("ce_source", format!("/primetrade/{}/{}", self.log_id, event.shard).into()),
            ("ce_type", event.event_type.as_str().into()),
            ("ce_subject", event.task_id.to_string().into()),
            ("ce_time", format_time(event.occurred_at).into()),
            ("ce_recordedtime", format_time(event.recorded_at).into()),
            ("ce_schemaversion", event.schema_version.to_string().into()),
            ("ce_owner", event.owner_id.to_string().into()),
            ("ce_taskversion", event.version.to_string().into()),
            ("ce_position", event.position.to_string().into()),
            ("ce_previousposition", self.previous_position.to_string().into()),
            ("ce_publication", self.publication.to_string().into()),
            ("ce_actortype", event.actor_type.as_str().into()),
            ("ce_commandid", event.command_id.to_string().into()),
            ("ce_correlationid", event.correlation_id.as_str().into()),
            // by the name under which tracers look for it
            ("traceparent", event.traceparent.as_str().into()),
        ];
        headers.extend(event.actor_id.map(|id| ("ce_actorid", id.to_string().into())));
        headers.extend(event.change_id.map(|id| ("ce_changeid", id.to_string().into())));
        headers.extend(event.undoes.map(|id| ("ce_undoes", id.to_string().into())));
        headers
    }

    /// Reads a message, strictly: every header once and in its form, the key the owner's. Headers that it does not
    /// know are not looked at. Whether the data is what the type says, `StoredEvent::decode` tells. `headers`: by name and
    /// value; `None` where a name is not UTF-8.
    ///
    /// # Errors
    /// Anything else; with what could be read.
    pub fn read(
        key: Option<&[u8]>,
        headers: Option<&[Header<'_>]>,
        payload: Option<&[u8]>,
    ) -> Result<Self, Box<Unreadable>> {
        let key = key.and_then(|key| std::str::from_utf8(key).ok()).and_then(|key| canonical::<Uuid>(key).ok());
        let found = Found(headers.unwrap_or_default());
        let message = match headers {
            Some(_) => found.message(key, payload),
            None => Err("the name of a header is not UTF-8".to_owned()),
        };
        message.map_err(|reason| found.unreadable(reason, key, payload.unwrap_or_default()))
    }
}

/// A header: its name and its value, as they came.
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// The headers of a message.
struct Found<'a>(&'a [Header<'a>]);

impl<'a> Found<'a> {
    fn message(&self, key: Option<Uuid>, payload: Option<&[u8]>) -> Result<Message, String> {
        for (name, expected) in [("ce_specversion", SPEC_VERSION), ("content-type", CONTENT_TYPE)] {
            let value = self.text(name)?;
            if value != expected {
                return Err(format!("{name} is not {expected:?}"));
            }
        }
        let (log_id, shard) = self.source()?;
        let owner_id: Uuid = self.parsed("ce_owner")?;
        if key != Some(owner_id) {
            return Err("the key is not the owner's id".into());
        }
        let message = Message {
            event: StoredEvent {
                shard,
                position: self.parsed("ce_position")?,
                owner_id: OwnerId(owner_id),
                task_id: TaskId(self.parsed("ce_subject")?),
                version: self.parsed("ce_taskversion")?,
                event_id: self.parsed("ce_id")?,
                event_type: self.text("ce_type")?.to_owned(),
                schema_version: self.parsed("ce_schemaversion")?,
                occurred_at: self.time("ce_time")?,
                recorded_at: self.time("ce_recordedtime")?,
                actor_type: self.text("ce_actortype")?.to_owned(),
                actor_id: self.parsed_if_there("ce_actorid")?,
                command_id: self.parsed("ce_commandid")?,
                correlation_id: self.text("ce_correlationid")?.to_owned(),
                traceparent: self.text("traceparent")?.to_owned(),
                change_id: self.parsed_if_there("ce_changeid")?,
                undoes: self.parsed_if_there("ce_undoes")?,
                data: text("the payload", payload)?.to_owned(),
            },
            log_id,
            publication: self.parsed("ce_publication")?,
            previous_position: self.parsed("ce_previousposition")?,
        };
        let Message { event, publication, previous_position, .. } = &message;
        for (name, value) in [("position", event.position), ("version", event.version), ("publication", *publication)] {
            if value < 1 {
                return Err(format!("the {name} is {value}, below 1"));
            }
        }
        if !(0..event.position).contains(previous_position) {
            return Err(format!(
                "the position before it is {previous_position}, which is not before {}",
                event.position
            ));
        }
        Ok(message)
    }

    fn unreadable(&self, reason: String, key: Option<Uuid>, payload: &[u8]) -> Box<Unreadable> {
        let source = self.source().ok();
        let owner_id = self.parsed("ce_owner").ok().or(key);
        Box::new(Unreadable {
            reason: without_nul(&reason),
            log_id: source.map(|(log_id, _)| log_id),
            shard: source.map(|(_, shard)| shard),
            position: self.parsed("ce_position").ok(),
            previous_position: self.parsed("ce_previousposition").ok(),
            publication: self.parsed("ce_publication").ok(),
            owner_id: owner_id.map(OwnerId),
            task_id: self.parsed("ce_subject").ok().map(TaskId),
            version: self.parsed("ce_taskversion").ok(),
            event_id: self.parsed("ce_id").ok(),
            event_type: self.text("ce_type").ok().map(str::to_owned),
            payload: without_nul(&String::from_utf8_lossy(payload)),
        })
    }

    fn parsed_if_there<T: FromStr<Err: Display> + Display>(&self, name: &str) -> Result<Option<T>, String> {
        self.0.iter().any(|(key, _)| *key == name).then(|| self.parsed(name)).transpose()
    }

    fn text(&self, name: &str) -> Result<&'a str, String> {
        let mut values = self.0.iter().filter(|(key, _)| *key == name).map(|(_, value)| *value);
        match (values.next(), values.next()) {
            (None, _) => Err(format!("the header {name} is missing")),
            (Some(_), Some(_)) => Err(format!("the header {name} is there twice")),
            (Some(value), None) => text(name, value),
        }
    }

    fn parsed<T: FromStr<Err: Display> + Display>(&self, name: &str) -> Result<T, String> {
        canonical(self.text(name)?).map_err(|reason| format!("{name}: {reason}"))
    }

    fn time(&self, name: &str) -> Result<Time, String> {
        parse_time(self.text(name)?).map_err(|error| format!("{name} {error}"))
    }

    fn source(&self) -> Result<(Uuid, i16), String> {
        let source = self.text("ce_source")?;
        let parts = source.strip_prefix("/primetrade/").and_then(|rest| rest.split_once('/'));
        let (log_id, shard) = parts.ok_or("ce_source is not /primetrade/<log>/<shard>")?;
        let named = |reason| format!("ce_source: {reason}");
        Ok((canonical(log_id).map_err(named)?, canonical(shard).map_err(named)?))
    }
}

/// Postgres cannot store a NUL in a text, and none of ours has one.
fn text<'a>(name: &str, value: Option<&'a [u8]>) -> Result<&'a str, String> {
    let value = value.ok_or_else(|| format!("{name} is empty"))?;
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) => Err(format!("{name} has a NUL")),
        Err(error) => Err(format!("{name} is not UTF-8: {error}")),
    }
}

/// Of the spellings of a number or an id only the one that we write.
fn canonical<T: FromStr<Err: Display> + Display>(text: &str) -> Result<T, String> {
    let value: T = text.parse().map_err(|error: T::Err| error.to_string())?;
    if value.to_string() == text { Ok(value) } else { Err("it is not how it is written".to_owned()) }
}

fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
