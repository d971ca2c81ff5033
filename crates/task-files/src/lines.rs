//! Cuts a stream of any length into lines or CSV records, in bounded memory, each with its line number.

use std::io::{self, BufRead, Read};

use commands::parse_error::COMMAND_BYTES_MAX;

/// How long a line or record may be, in bytes: as long as one command.
pub const LINE_BYTES_MAX: usize = COMMAND_BYTES_MAX;

/// The byte order mark of UTF-8.
pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";

/// Why a piece could not be cut out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// The line goes on and on; it was skipped to its end.
    #[error("the line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// The record does not end; what follows its first line is read anew.
    #[error("a quoted cell that begins here does not end within {LINE_BYTES_MAX} bytes")]
    Unclosed,
}

/// A line or record without its line end.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Number of its (first) line, from 1.
    pub line: u64,
    /// What it holds.
    pub content: Result<&'a [u8], CutError>,
}

/// What the pieces are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Each line.
    Lines,
    /// CSV records with this separator, whose quoted cells may hold line ends.
    Records(u8),
}

/// Cuts pieces out of a stream. Blank lines are counted and left out, as is a byte order mark.
pub struct Pieces<R> {
    source: Source<R>,
    cut: Cut,
    /// Lines that were begun so far.
    lines: u64,
    piece: Vec<u8>,
}

/// How a physical line ended.
#[derive(PartialEq, Eq)]
enum End {
    LineFeed,
    Limit,
    Stream,
}

impl<R: BufRead> Pieces<R> {
    /// Reads from the stream's beginning.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub fn new(input: R, cut: Cut) -> io::Result<Self> {
        let mut source = Source { again: Vec::new(), at: 0, input, bytes_read: 0 };
        let mut start = Vec::with_capacity(BOM.len());
        (&mut source).take(BOM.len() as u64).read_to_end(&mut start)?;
        if start != BOM {
            source.put_back(&start);
        }
        Ok(Self { source, cut, lines: 0, piece: Vec::new() })
    }

    /// From now on the pieces are these.
    pub fn cut_as(&mut self, cut: Cut) {
        self.cut = cut;
    }

    /// How much of the stream was read, in bytes.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.source.bytes_read
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub fn next(&mut self) -> io::Result<Option<Piece<'_>>> {
        loop {
            self.piece.clear();
            let line = self.lines + 1;
            let end = self.read_line()?;
            if end == End::Stream && self.piece.is_empty() {
                return Ok(None);
            }
            self.lines += 1;
            if end == End::Limit {
                self.skip_line()?;
                return Ok(Some(Piece { line, content: Err(CutError::TooLong) }));
            }
            if let Cut::Records(separator) = self.cut
                && !self.finish_record(end, separator)?
            {
                return Ok(Some(Piece { line, content: Err(CutError::Unclosed) }));
            }
            let length = without_line_end(&self.piece).len();
            if !self.piece[..length].iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(Piece { line, content: Ok(&self.piece[..length]) }));
            }
        }
    }

    /// Reads on until the record ends outside of quotes. If it never does, its first line alone is refused.
    fn finish_record(&mut self, mut end: End, separator: u8) -> io::Result<bool> {
        let first = self.piece.len();
        let mut quotes = Quotes::default();
        let mut seen = 0;
        let mut lines = 0;
        loop {
            quotes = self.piece[seen..].iter().fold(quotes, |quotes, byte| quotes.after(*byte, separator));
            if end == End::Limit || (end == End::Stream && quotes == Quotes::Inside) {
                self.source.put_back(&self.piece[first..]);
                return Ok(false);
            }
            if quotes != Quotes::Inside {
                self.lines += lines;
                return Ok(true);
            }
            seen = self.piece.len();
            end = self.read_line()?;
            lines += 1;
        }
    }

    /// Appends a physical line, its line feed included, as far as the piece may grow.
    fn read_line(&mut self) -> io::Result<End> {
        // The line end does not count.
        let room = (LINE_BYTES_MAX + 2).saturating_sub(self.piece.len());
        let read = (&mut self.source).take(room as u64).read_until(b'\n', &mut self.piece)?;
        Ok(if room == 0 || without_line_end(&self.piece).len() > LINE_BYTES_MAX {
            End::Limit
        } else if read > 0 && self.piece.last() == Some(&b'\n') {
            End::LineFeed
        } else {
            End::Stream
        })
    }

    fn skip_line(&mut self) -> io::Result<()> {
        if self.piece.last() != Some(&b'\n') {
            self.source.skip_until(b'\n')?;
        }
        Ok(())
    }
}

fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Where in a CSV record the reader is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Quotes {
    #[default]
    CellStart,
    Bare,
    Inside,
    /// After a quote in a quoted cell: its end, or the first half of a doubled one.
    Closing,
}

impl Quotes {
    fn after(self, byte: u8, separator: u8) -> Self {
        match (self, byte) {
            (Self::CellStart | Self::Closing, b'"') => Self::Inside,
            (Self::CellStart | Self::Bare | Self::Closing, byte) if byte == separator => Self::CellStart,
            (Self::CellStart | Self::Bare | Self::Closing, _) => Self::Bare,
            (Self::Inside, b'"') => Self::Closing,
            (Self::Inside, _) => Self::Inside,
        }
    }
}

/// The cells of a record, as RFC 4180 has them; what stands after a closing quote belongs to the cell.
#[must_use]
pub fn cells(record: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let mut cells = Vec::new();
    let mut cell = Vec::new();
    let mut quotes = Quotes::default();
    for byte in record {
        let after = quotes.after(*byte, separator);
        match (quotes, after) {
            (_, Quotes::CellStart) => cells.push(std::mem::take(&mut cell)),
            (Quotes::CellStart, Quotes::Inside) | (Quotes::Inside, Quotes::Closing) => {}
            (_, _) => cell.push(*byte),
        }
        quotes = after;
    }
    cells.push(cell);
    cells
}

/// A stream into which something that was read can be put back.
struct Source<R> {
    again: Vec<u8>,
    at: usize,
    input: R,
    bytes_read: u64,
}

impl<R> Source<R> {
    fn put_back(&mut self, bytes: &[u8]) {
        let mut again = bytes.to_vec();
        again.extend_from_slice(&self.again[self.at..]);
        self.again = again;
        self.at = 0;
    }
}

impl<R: BufRead> Read for Source<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(into.len());
        into[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at < self.again.len() { Ok(&self.again[self.at..]) } else { self.input.fill_buf() }
    }

    fn consume(&mut self, amount: usize) {
        if self.at < self.again.len() {
            self.at += amount;
        } else {
            self.input.consume(amount);
            self.bytes_read += amount as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Cuts = Vec<(u64, Result<Vec<u8>, CutError>)>;

    fn cut(input: &[u8], cut: Cut) -> Cuts {
        // A small buffer, so that lines cross its borders.
        let mut pieces = Pieces::new(io::BufReader::with_capacity(7, input), cut).unwrap();
        let mut found = Vec::new();
        while let Some(piece) = pieces.next().unwrap() {
            found.push((piece.line, piece.content.map(<[u8]>::to_vec)));
        }
        assert_eq!(pieces.bytes_read(), input.len() as u64);
        found
    }

    fn ok(line: u64, content: &[u8]) -> (u64, Result<Vec<u8>, CutError>) {
        (line, Ok(content.to_vec()))
    }

    #[test]
    fn lines_are_counted_and_blank_ones_left_out() {
        assert_eq!(
            cut(b"\xef\xbb\xbf{1}\r\n\n  \n{2}\n{3}", Cut::Lines),
            [ok(1, b"{1}"), ok(4, b"{2}"), ok(5, b"{3}")]
        );
        assert_eq!(cut(b"", Cut::Lines), []);
        assert_eq!(cut(b"x", Cut::Lines), [ok(1, b"x")]);
    }

    #[test]
    fn a_line_of_any_length_costs_one_line() {
        for end in [&b"\n"[..], b"\r\n"] {
            let mut input = vec![b'a'; LINE_BYTES_MAX];
            input.extend(end);
            input.extend(vec![b'b'; LINE_BYTES_MAX + 1]);
            input.extend(end);
            input.extend(vec![b'c'; 5 * LINE_BYTES_MAX]);
            input.extend(end);
            input.extend(b"last");
            let found = cut(&input, Cut::Lines);
            assert_eq!(found.len(), 4);
            assert_eq!(found[0].1.as_ref().map(Vec::len), Ok(LINE_BYTES_MAX));
            assert_eq!(found[1..], [(2, Err(CutError::TooLong)), (3, Err(CutError::TooLong)), ok(4, b"last")]);
        }
        assert_eq!(cut(&vec![b'x'; LINE_BYTES_MAX + 1], Cut::Lines), [(1, Err(CutError::TooLong))]);
        assert_eq!(cut(&vec![b'x'; LINE_BYTES_MAX], Cut::Lines).len(), 1);
    }

    #[test]
    fn records_may_hold_line_ends() {
        let found = cut(b"a,\"b\nb\"\r\nc\"c,d\n\"e\"\"\n\",f\n", Cut::Records(b','));
        assert_eq!(found, [ok(1, b"a,\"b\nb\""), ok(3, b"c\"c,d"), ok(4, b"\"e\"\"\n\",f")]);
    }

    #[test]
    fn a_quoted_cell_begins_behind_the_separator() {
        let text = b"a;\"b;\nb\";,\"c\n";
        assert_eq!(cut(text, Cut::Records(b';')), [ok(1, b"a;\"b;\nb\";,\"c")]);
        assert_eq!(cells(b"a;\"b;\nb\";,\"c", b';'), [&b"a"[..], b"b;\nb", b",\"c"]);
        assert_eq!(cells(b"\"a,b\"\tc", b'\t'), [&b"a,b"[..], b"c"]);
    }

    #[test]
    fn a_quote_that_is_never_closed_costs_one_line() {
        let found = cut(b"a,\"b\nc,d\ne,f", Cut::Records(b','));
        assert_eq!(found, [(1, Err(CutError::Unclosed)), ok(2, b"c,d"), ok(3, b"e,f")]);
        let mut long = b"a,\"b\n".to_vec();
        (0..LINE_BYTES_MAX / 2).for_each(|_| long.extend(b"x,y\n"));
        let found = cut(&long, Cut::Records(b','));
        assert_eq!(found.len(), 1 + LINE_BYTES_MAX / 2);
        assert_eq!(found[0], (1, Err(CutError::Unclosed)));
        assert_eq!(found[LINE_BYTES_MAX / 2], ok(1 + LINE_BYTES_MAX as u64 / 2, b"x,y"));
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_were_written(rows in prop::collection::vec(prop::collection::vec("[a,\"\r\n' é]{0,6}", 2..5), 1..6)) {
            let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let text = writer.into_inner().unwrap();
            let found: Vec<Vec<Vec<u8>>> = cut(&text, Cut::Records(b',')).into_iter().map(|(_, piece)| cells(&piece.unwrap(), b',')).collect();
            let expected: Vec<Vec<Vec<u8>>> = rows.into_iter().map(|row| row.into_iter().map(String::into_bytes).collect()).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn nothing_is_lost_or_invented(input in prop::collection::vec(prop_oneof![Just(b'"'), Just(b','), Just(b'\n'), Just(b'x')], 0..60)) {
            let found = cut(&input, Cut::Records(b','));
            prop_assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "line numbers ascend");
            let x_in = input.iter().filter(|byte| **byte == b'x').count();
            let x_out: usize = found.iter().filter_map(|(_, piece)| piece.as_ref().ok()).flatten().filter(|byte| **byte == b'x').count();
            prop_assert!(x_out <= x_in);
            if found.iter().all(|(_, piece)| piece.is_ok()) {
                prop_assert_eq!(x_out, x_in);
            }
        }
    }
}
