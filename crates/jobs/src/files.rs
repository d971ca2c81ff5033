//! Files of jobs in an object store: a folder, or a bucket of S3.

use std::path::Path as FilePath;
use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use settings::{ConfigError, Source, invalid};
use tokio::io::AsyncBufRead;
use tokio_util::io::StreamReader;
use uuid::Uuid;

const OBJECT_STORE_URL: &str = "PRIMETRADE_OBJECT_STORE_URL";
/// What is written at a time, in bytes: the least that S3 takes as a part.
const PART_BYTES: usize = 5 << 20;
/// Parts of a file on their way at the same time.
const PARTS_AT_ONCE_MAX: usize = 2;

/// Files of jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Files(Arc<dyn ObjectStore>);

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the folder {0} cannot be used for files of jobs: {1}")]
pub struct FilesError(String, #[source] Box<dyn std::error::Error + Send + Sync>);

impl Files {
    /// `PRIMETRADE_OBJECT_STORE_URL`: `file:///…`, or `s3://bucket/prefix` with the variables of AWS for the rest
    /// (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT` and so on).
    ///
    /// # Errors
    /// It is none of these.
    pub fn read(source: &Source) -> Result<Option<Self>, ConfigError> {
        let Some(url) = source.text(OBJECT_STORE_URL)? else { return Ok(None) };
        let wrong = || invalid(OBJECT_STORE_URL, &"it is file:///folder or s3://bucket/prefix");
        if let Some(path) = url.strip_prefix("file://").filter(|path| path.starts_with('/')) {
            return Self::folder(FilePath::new(path)).map(Some).map_err(|error| invalid(OBJECT_STORE_URL, &error));
        }
        let place = url.strip_prefix("s3://").ok_or_else(wrong)?;
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return Err(wrong());
        }
        let prefix = Path::parse(prefix).map_err(|_| wrong())?;
        // The library's client takes the process's provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .build()
            .map_err(|error| invalid(OBJECT_STORE_URL, &error))?;
        Ok(Some(Self(Arc::new(PrefixStore::new(store, prefix)))))
    }

    /// A folder, made with the first file.
    ///
    /// # Errors
    /// The path cannot be one of a file in an object store.
    pub fn folder(path: &FilePath) -> Result<Self, FilesError> {
        let failed = |error| FilesError(path.display().to_string(), error);
        let absolute = std::path::absolute(path).map_err(|error| failed(error.into()))?;
        let prefix = Path::from_absolute_path(absolute).map_err(|error| failed(error.into()))?;
        Ok(Self(Arc::new(PrefixStore::new(LocalFileSystem::new(), prefix))))
    }

    /// Writes a file, which is there only once the writer is shut down.
    pub(crate) fn writer(&self, file: FileOf) -> BufWriter {
        BufWriter::with_capacity(self.0.clone(), file.path(), PART_BYTES).with_max_concurrency(PARTS_AT_ONCE_MAX)
    }

    /// Reads a file from its beginning.
    pub(crate) async fn reader(
        &self,
        file: FileOf,
    ) -> Result<impl AsyncBufRead + Unpin + Send + use<>, object_store::Error> {
        let found = self.0.get(&file.path()).await?;
        Ok(StreamReader::new(found.into_stream().map_err(std::io::Error::other)))
    }

    /// Both files of a job, as far as they are there.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn delete(&self, job_id: Uuid) -> Result<(), object_store::Error> {
        for file in [FileOf::Import(job_id), FileOf::Result(job_id)] {
            match self.0.delete(&file.path()).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A file of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileOf {
    /// What is imported.
    Import(Uuid),
    /// What came of an export.
    Result(Uuid),
}

impl FileOf {
    fn path(self) -> Path {
        match self {
            Self::Import(id) => Path::from(format!("imports/{id}")),
            Self::Result(id) => Path::from(format!("results/{id}")),
        }
    }
}
