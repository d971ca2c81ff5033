//! A file as commands, line by line, in bounded memory.

use std::io::{self, BufRead};

use commands::{CommandRequest, ExecuteError, line};
use domain::{CommandId, OwnerId};
use process::clock;
use sha2::{Digest, Sha256};

use crate::csv_row::{Columns, HeaderError};
use crate::format::Format;
use crate::line_error::LineError;
use crate::lines::{Cut, Pieces};

/// Why a file cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream.
    #[error("cannot read the file after line {line}: {source}")]
    Stream {
        /// The last line that could be read.
        line: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The first line of a CSV file.
    #[error("{0}. Nothing was imported")]
    Header(#[from] HeaderError),
}

/// Reads a file as commands.
pub struct Reader<R> {
    pieces: Pieces<R>,
    /// Of a CSV file.
    columns: Option<Columns>,
    owner: OwnerId,
    history: bool,
    line: u64,
}

/// A line that is a command.
#[derive(Debug)]
pub struct ParsedLine {
    /// Its number, from 1; of a CSV record that of its first line.
    pub number: u64,
    /// How long it is.
    pub bytes: usize,
    /// The command, with an id.
    pub request: CommandRequest,
    /// The id that an earlier version of this program would have given the line.
    pub(crate) earlier_id: Option<CommandId>,
}

/// A line's number, from 1, and the command that it is or why it is none.
pub type NumberedLine = (u64, Result<ParsedLine, LineError>);

impl<R: BufRead> Reader<R> {
    /// Reads a file from its beginning, for this owner. `history`: what happened in the future is taken as it is.
    ///
    /// # Errors
    /// The stream cannot be read, or a CSV file has no header.
    pub fn new(input: R, format: Format, owner: OwnerId, history: bool) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Stream { line: 0, source };
        let cut = match format {
            Format::Ndjson => Cut::Lines,
            Format::Csv => Cut::Records(b','),
        };
        let mut pieces = Pieces::new(input, cut).map_err(failed)?;
        let columns = match format {
            Format::Ndjson => None,
            Format::Csv => {
                let first = pieces.next().map_err(failed)?.ok_or(HeaderError::Empty)?;
                let columns = Columns::of_header(first.content.map_err(HeaderError::Cut)?)?;
                pieces.cut_as(Cut::Records(columns.separator));
                Some(columns)
            }
        };
        Ok(Self { pieces, columns, owner, history, line: 0 })
    }

    /// The next line that is not blank, with its number; none at the end.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub fn next_line(&mut self) -> Result<Option<NumberedLine>, ReadError> {
        let line = self.line;
        let Some(piece) = self.pieces.next().map_err(|source| ReadError::Stream { line, source })? else {
            return Ok(None);
        };
        let number = piece.line;
        self.line = number;
        let read = match piece.content {
            Ok(content) => parse(self.owner, self.history, self.columns.as_ref(), number, content),
            Err(error) => Err(error.into()),
        };
        Ok(Some((number, read)))
    }

    /// Goes past the lines up to this one.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub fn skip_to(&mut self, number: u64) -> Result<(), ReadError> {
        while self.line < number && self.skip()? {}
        Ok(())
    }

    /// Goes past a line; false: there is none.
    fn skip(&mut self) -> Result<bool, ReadError> {
        let line = self.line;
        let piece = self.pieces.next().map_err(|source| ReadError::Stream { line, source })?;
        self.line = piece.as_ref().map_or(line, |piece| piece.line);
        Ok(piece.is_some())
    }

    /// How much of the stream was read, in bytes.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.pieces.bytes_read()
    }
}

impl ParsedLine {
    /// A line that stands in no file.
    #[must_use]
    pub fn made(number: u64, request: CommandRequest) -> Self {
        Self { number, bytes: 0, request, earlier_id: None }
    }
}

/// How many lines a file has that are not blank; of CSV without the header.
///
/// # Errors
/// As [`Reader::new`].
pub fn count_lines(input: impl BufRead, format: Format) -> Result<u64, ReadError> {
    let mut reader = Reader::new(input, format, OwnerId(uuid::Uuid::nil()), false)?;
    let mut lines = 0;
    while reader.skip()? {
        lines += 1;
    }
    Ok(lines)
}

fn parse(
    owner: OwnerId,
    history: bool,
    columns: Option<&Columns>,
    number: u64,
    content: &[u8],
) -> Result<ParsedLine, LineError> {
    let (parsed, made) = match columns {
        None => {
            let parsed = line::parse(content)?;
            let made = made_command_id(owner, number, parsed.fingerprint.as_bytes());
            (parsed, made)
        }
        Some(columns) => columns.command(content, |content| made_command_id(owner, number, content))?,
    };
    let earlier_id = parsed.command_id.is_none().then(|| made_command_id(owner, number, content));
    if !history {
        // The one rule about time that can be told without the task; the others are told when it is carried out.
        domain::occurred_at(parsed.occurred_at, clock::now(), None).map_err(ExecuteError::from)?;
    }
    Ok(ParsedLine { number, bytes: content.len(), request: parsed.request(Some(made)), earlier_id })
}

/// The id of a line without one: a UUID version 8 (RFC 9562) of the line's number (48 bits) and, for the rest, of
/// SHA-256 over owner, number and content. The same file again gives the same, and lines one after the other stand beside
/// each other in the index of ids, where random ids would touch a page each. Never to be changed.
///
/// The content is what the line says, whatever the order of its members or columns. Until 0.1 it was the line's bytes: an
/// import that was begun then is recognised by those ([`ParsedLine::earlier_id`]).
#[must_use]
pub fn made_command_id(owner: OwnerId, line: u64, content: &[u8]) -> CommandId {
    let digest = Sha256::new().chain_update(owner.0).chain_update(line.to_be_bytes()).chain_update(content).finalize();
    let mut id = [0; 16];
    id[..6].copy_from_slice(&line.to_be_bytes()[2..]);
    id[6..].copy_from_slice(&digest[..10]);
    CommandId(uuid::Builder::from_custom_bytes(id).into_uuid())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn ids_of_lines_hang_on_owner_line_and_content() {
        let (a, b) = (OwnerId(Uuid::nil()), OwnerId(Uuid::max()));
        assert_eq!(made_command_id(a, 1, b"x"), made_command_id(a, 1, b"x"));
        let different = [
            made_command_id(a, 1, b"x"),
            made_command_id(b, 1, b"x"),
            made_command_id(a, 2, b"x"),
            made_command_id(a, 1, b"y"),
        ];
        assert_eq!(different.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
        // A promise to files that were imported half-way by an earlier version.
        assert_eq!(made_command_id(a, 1, b"x").to_string(), "00000000-0001-8e82-9835-d002b0db18e6");
    }

    #[test]
    fn who_skips_goes_on_with_the_line_after() {
        let file = b"title\na\n\n\"b\nb\"\nc\n";
        let mut reader = Reader::new(&file[..], Format::Csv, OwnerId(Uuid::nil()), false).unwrap();
        reader.skip_to(4).unwrap();
        let (number, line) = reader.next_line().unwrap().unwrap();
        assert_eq!((number, line.unwrap().number), (6, 6));
        assert!(reader.next_line().unwrap().is_none());
        reader.skip_to(100).unwrap();
    }
}
