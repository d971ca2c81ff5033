//! A tar archive (POSIX ustar), compressed by gzip, written as it comes: lines are collected to files of a few megabytes, so
//! that the length of each is known before it.

use async_compression::tokio::write::GzipEncoder;
use domain::Time;
use tokio::io::{AsyncWrite, AsyncWriteExt};

const BLOCK_BYTES: usize = 512;
/// Lines are put into files of about so many bytes.
const FILE_BYTES: usize = 4 << 20;

/// An archive under way.
pub(crate) struct Tar<W> {
    out: GzipEncoder<W>,
    /// When all files were last changed.
    at: Time,
}

/// Lines that go into files of one folder: `<folder>/000001.ndjson` and so on.
pub(crate) struct Lines {
    folder: &'static str,
    files: u32,
    bytes: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> Tar<W> {
    pub fn new(out: W, at: Time) -> Self {
        Self { out: GzipEncoder::new(out), at }
    }

    /// Adds a file. The name has at most 100 bytes.
    pub async fn add(&mut self, name: &str, content: &[u8]) -> std::io::Result<()> {
        self.out.write_all(&header(name, content.len(), self.at)).await?;
        self.out.write_all(content).await?;
        let padding = content.len().next_multiple_of(BLOCK_BYTES) - content.len();
        self.out.write_all(&[0; BLOCK_BYTES][..padding]).await
    }

    /// Ends it, and what it is written to.
    pub async fn end(mut self) -> std::io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK_BYTES]).await?;
        self.out.shutdown().await
    }
}

impl Lines {
    pub fn new(folder: &'static str) -> Self {
        Self { folder, files: 0, bytes: Vec::new() }
    }

    /// Adds a line; a file that is long enough goes into the archive.
    pub async fn push<W: AsyncWrite + Unpin>(&mut self, line: &str, tar: &mut Tar<W>) -> std::io::Result<()> {
        self.bytes.extend_from_slice(line.as_bytes());
        self.bytes.push(b'\n');
        if self.bytes.len() >= FILE_BYTES { self.flush(tar).await } else { Ok(()) }
    }

    /// What is left goes into the archive; a folder without lines has one empty file.
    pub async fn end<W: AsyncWrite + Unpin>(mut self, tar: &mut Tar<W>) -> std::io::Result<()> {
        if self.bytes.is_empty() && self.files > 0 { Ok(()) } else { self.flush(tar).await }
    }

    async fn flush<W: AsyncWrite + Unpin>(&mut self, tar: &mut Tar<W>) -> std::io::Result<()> {
        self.files += 1;
        tar.add(&format!("{}/{:06}.ndjson", self.folder, self.files), &self.bytes).await?;
        self.bytes.clear();
        Ok(())
    }
}

fn header(name: &str, length: usize, at: Time) -> [u8; BLOCK_BYTES] {
    let mut header = [0; BLOCK_BYTES];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{length:011o}\0").as_bytes());
    put(136, format!("{:011o}\0", at.timestamp().max(0)).as_bytes());
    // The sum is made with spaces in its place.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use async_compression::tokio::bufread::GzipDecoder;
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn lines_are_in_files_of_known_length() {
        let mut packed = Vec::new();
        let mut tar = Tar::new(&mut packed, Time::UNIX_EPOCH);
        tar.add("one.json", b"{}").await.unwrap();
        let (mut lines, empty) = (Lines::new("lines"), Lines::new("empty"));
        let line = "x".repeat(FILE_BYTES / 2);
        for _ in 0..3 {
            lines.push(&line, &mut tar).await.unwrap();
        }
        lines.end(&mut tar).await.unwrap();
        empty.end(&mut tar).await.unwrap();
        tar.end().await.unwrap();
        let mut unpacked = Vec::new();
        GzipDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).await.unwrap();
        let (mut rest, mut files) = (unpacked.as_slice(), Vec::new());
        while rest[0] != 0 {
            let (header, content) = rest.split_at(BLOCK_BYTES);
            let text = |from: usize, to: usize| std::str::from_utf8(&header[from..to]).unwrap().trim_end_matches('\0');
            let length = usize::from_str_radix(text(124, 136), 8).unwrap();
            files.push((text(0, 100).to_owned(), length));
            rest = &content[length.next_multiple_of(BLOCK_BYTES)..];
        }
        assert_eq!(rest.len(), 2 * BLOCK_BYTES);
        let expected = [
            ("one.json", 2),
            ("lines/000001.ndjson", 2 * (line.len() + 1)),
            ("lines/000002.ndjson", line.len() + 1),
            ("empty/000001.ndjson", 0),
        ];
        assert_eq!(files, expected.map(|(name, length)| (name.to_owned(), length)));
    }
}
