//! The binary form of COPY: what Postgres need not parse from text costs it half. It also writes the rows of a page as one
//! record of its write-ahead log, where an INSERT writes one for each row, some 45 bytes more.

use domain::Time;
use sqlx::PgConnection;
use uuid::Uuid;

/// Microseconds from the Unix epoch to 2000-01-01, where Postgres counts from.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
/// The type `text` in `pg_type`.
const TEXT_OID: u32 = 25;

/// From so many rows on a batch copies what is new instead of inserting it: COPY is planned each time and takes a round trip
/// more.
pub(crate) const COPY_ROWS_MIN: usize = 100;

/// The statements that copy into a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Statements {
    /// Into that of the generation which is filled in bulk.
    pub building: &'static str,
    /// Into the generation that the rows name.
    pub attached: &'static str,
}

/// [`Statements`] of a table and these columns of it.
macro_rules! copy_into {
    ($table:literal, $columns:literal) => {
        $crate::copy::Statements {
            building: concat!("copy read_model.", $table, "_building (", $columns, ") from stdin (format binary)"),
            attached: concat!("copy read_model.", $table, " (", $columns, ") from stdin (format binary)"),
        }
    };
}

pub(crate) use copy_into;

/// A COPY: its statements, and what is sent.
#[derive(Debug)]
pub(crate) struct CopyIn {
    pub statements: Statements,
    pub rows: Rows,
}

impl CopyIn {
    /// Sends the rows to the generation that is filled in bulk; without any the database is not asked.
    pub(crate) async fn fill(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        send(self.statements.building, self.rows, connection).await
    }

    /// Sends the rows to an attached generation; without any the database is not asked.
    pub(crate) async fn add(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        send(self.statements.attached, self.rows, connection).await
    }
}

async fn send(statement: &str, rows: Rows, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut copy = connection.copy_in_raw(statement).await?;
    copy.send(rows.finish()).await?;
    copy.finish().await?;
    Ok(())
}

/// Rows for `copy … from stdin (format binary)`.
#[derive(Debug)]
pub(crate) struct Rows {
    bytes: Vec<u8>,
    count: usize,
}

impl Rows {
    pub(crate) fn new() -> Self {
        let mut bytes = Vec::with_capacity(1 << 16);
        bytes.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
        // flags, length of the header's extension
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes, count: 0 }
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The whole input.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&(-1_i16).to_be_bytes());
        self.bytes
    }

    /// Begins a row of `columns`; as many values must follow.
    pub(crate) fn row(&mut self, columns: i16) -> &mut Self {
        self.count += 1;
        self.bytes.extend_from_slice(&columns.to_be_bytes());
        self
    }

    fn field(&mut self, value: &[u8]) -> &mut Self {
        self.length(value.len());
        self.bytes.extend_from_slice(value);
        self
    }

    fn length(&mut self, length: usize) {
        // Values are bounded far below 2 GiB: events come from columns that Postgres has held.
        self.bytes.extend_from_slice(&i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes());
    }

    fn null(&mut self) -> &mut Self {
        self.bytes.extend_from_slice(&(-1_i32).to_be_bytes());
        self
    }

    /// Writes a value whose length is known once it is written.
    fn measured(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        write(&mut self.bytes);
        let length = i32::try_from(self.bytes.len() - at - 4).unwrap_or(i32::MAX);
        if let Some(prefix) = self.bytes.get_mut(at..at + 4) {
            prefix.copy_from_slice(&length.to_be_bytes());
        }
        self
    }

    pub(crate) fn boolean(&mut self, value: bool) -> &mut Self {
        self.field(&[u8::from(value)])
    }

    pub(crate) fn smallint(&mut self, value: i16) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    pub(crate) fn smallint_or_null(&mut self, value: Option<i16>) -> &mut Self {
        match value {
            Some(value) => self.smallint(value),
            None => self.null(),
        }
    }

    pub(crate) fn int(&mut self, value: i32) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    pub(crate) fn bigint(&mut self, value: i64) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    pub(crate) fn uuid(&mut self, value: Uuid) -> &mut Self {
        self.field(value.as_bytes())
    }

    pub(crate) fn uuid_or_null(&mut self, value: Option<Uuid>) -> &mut Self {
        match value {
            Some(value) => self.uuid(value),
            None => self.null(),
        }
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.field(value.as_bytes())
    }

    pub(crate) fn text_or_null(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(value),
            None => self.null(),
        }
    }

    pub(crate) fn time(&mut self, value: Time) -> &mut Self {
        self.bigint(value.timestamp_micros() - POSTGRES_EPOCH_US)
    }

    pub(crate) fn time_or_null(&mut self, value: Option<Time>) -> &mut Self {
        match value {
            Some(value) => self.time(value),
            None => self.null(),
        }
    }

    /// `text[]`
    pub(crate) fn texts(&mut self, values: &[String]) -> &mut Self {
        self.measured(|bytes| {
            let dimensions = i32::from(!values.is_empty());
            bytes.extend_from_slice(&dimensions.to_be_bytes());
            // no nulls
            bytes.extend_from_slice(&0_i32.to_be_bytes());
            bytes.extend_from_slice(&TEXT_OID.to_be_bytes());
            if !values.is_empty() {
                bytes.extend_from_slice(&i32::try_from(values.len()).unwrap_or(i32::MAX).to_be_bytes());
                bytes.extend_from_slice(&1_i32.to_be_bytes());
            }
            for value in values {
                bytes.extend_from_slice(&i32::try_from(value.len()).unwrap_or(i32::MAX).to_be_bytes());
                bytes.extend_from_slice(value.as_bytes());
            }
        })
    }

    /// `tsvector` without positions, from words that are sorted by bytes, each once.
    pub(crate) fn words(&mut self, words: &[&str]) -> &mut Self {
        self.measured(|bytes| {
            bytes.extend_from_slice(&i32::try_from(words.len()).unwrap_or(i32::MAX).to_be_bytes());
            for word in words {
                bytes.extend_from_slice(word.as_bytes());
                // its end, and no positions
                bytes.extend_from_slice(&[0, 0, 0]);
            }
        })
    }
}
