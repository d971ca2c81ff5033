use std::io;
use std::pin::pin;

use async_compression::tokio::bufread::GzipDecoder;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use object_store::buffered::BufWriter;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_util::io::StreamReader;
use uuid::Uuid;

use crate::files::{FileOf, Files};

/// The largest file of an import, in bytes: as it is sent, and unpacked.
pub const UPLOAD_BYTES_MAX: u64 = 256 << 20;
const BUFFER_BYTES: usize = 256 << 10;

/// A file on its way into the store.
#[derive(Debug, Clone, Copy)]
pub struct Upload {
    /// Of which job.
    pub job_id: Uuid,
    /// Whether it comes as gzip (RFC 1952).
    pub is_gzip: bool,
}

/// A file in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uploaded {
    /// SHA-256 of what was sent.
    pub sha256: [u8; 32],
}

/// Why a file was not taken. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum UploadError<E> {
    /// More than [`UPLOAD_BYTES_MAX`], as it was sent or unpacked.
    #[error("the file is longer than {UPLOAD_BYTES_MAX} bytes, as it was sent or unpacked")]
    TooLarge,
    /// What was sent as gzip is none.
    #[error("not gzip as it should be: {0}")]
    NotGzip(io::Error),
    /// It did not come.
    #[error("the body broke off")]
    Body(E),
    /// No room is left for it.
    #[error("{0}")]
    DiskFull(io::Error),
    /// The store did not take it.
    #[error("the object store: {0}")]
    Store(io::Error),
}

impl Upload {
    /// Stores a body as it comes, unpacked.
    ///
    /// # Errors
    /// See [`UploadError`].
    pub async fn store<E>(
        self,
        files: &Files,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<Uploaded, UploadError<E>> {
        let (mut sent_bytes, mut hash, mut broken) = (0_u64, Sha256::new(), None);
        let sent = body.map_err(|error| {
            broken = Some(UploadError::Body(error));
            io::Error::from(io::ErrorKind::ConnectionAborted)
        });
        let sent = sent.try_filter_map(|part| {
            sent_bytes += part.len() as u64;
            hash.update(&part);
            let part = if sent_bytes > UPLOAD_BYTES_MAX { Err(too_large()) } else { Ok(Some(part)) };
            std::future::ready(part)
        });
        let mut sent = StreamReader::new(Box::pin(sent));
        let mut writer = files.writer(FileOf::Import(self.job_id));
        let stored = if self.is_gzip {
            let mut unpacked = GzipDecoder::new(&mut sent);
            unpacked.multiple_members(true);
            copy(pin!(unpacked), files, &mut writer).await
        } else {
            copy(&mut sent, files, &mut writer).await
        };
        drop(sent);
        let error = match stored {
            // A writer that was shut down cannot be aborted, nor has to be: what it has written goes with the error.
            Ok(()) => {
                return match writer.shutdown().await {
                    Ok(()) => Ok(Uploaded { sha256: hash.finalize().into() }),
                    Err(error) => Err(not_stored(error)),
                };
            }
            Err(CopyError::Write(error)) => not_stored(error),
            Err(CopyError::Read(error)) => match broken {
                Some(broken) => broken,
                None if error.kind() == io::ErrorKind::FileTooLarge => UploadError::TooLarge,
                None => UploadError::NotGzip(error),
            },
        };
        if let Err(error) = writer.abort().await {
            tracing::warn!(%error, "an upload that was broken off was not removed");
        }
        Err(error)
    }
}

fn not_stored<E>(error: io::Error) -> UploadError<E> {
    if is_disk_full(&error) { UploadError::DiskFull(error) } else { UploadError::Store(error) }
}

/// Whether that is what lies under it: the library wraps what the disk says.
fn is_disk_full(error: &io::Error) -> bool {
    let mut causes = std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source());
    causes
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::StorageFull))
}

fn too_large() -> io::Error {
    io::ErrorKind::FileTooLarge.into()
}

enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// As far as [`UPLOAD_BYTES_MAX`].
async fn copy(mut from: impl AsyncRead + Unpin, files: &Files, to: &mut BufWriter) -> Result<(), CopyError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut copied_bytes = 0;
    loop {
        files.check_room().map_err(CopyError::Write)?;
        let length = from.read(&mut buffer).await.map_err(CopyError::Read)?;
        if length == 0 {
            return Ok(());
        }
        copied_bytes += length as u64;
        if copied_bytes > UPLOAD_BYTES_MAX {
            return Err(CopyError::Read(too_large()));
        }
        to.write_all(&buffer[..length]).await.map_err(CopyError::Write)?;
    }
}
