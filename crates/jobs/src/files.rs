//! Files of jobs in an object store: a folder, or a bucket of S3.

use std::io;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use backends::database::DiskSpace;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientConfigKey, GetOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use process::clock;
use settings::{ConfigError, OBJECT_STORE_URL, ObjectStoreUrl, Source, invalid};
use tokio::io::AsyncBufRead;
use tokio_util::io::StreamReader;
use uuid::Uuid;

const IMPORTS: &str = "imports";
const RESULTS: &str = "results";
/// What is written at a time, in bytes: the least that S3 takes as a part.
const PART_BYTES: usize = 5 << 20;
/// Parts of a file on their way at the same time.
const PARTS_AT_ONCE_MAX: usize = 2;
/// How long S3 may be silent while an answer is waited for, in seconds.
const SILENCE_S_MAX: u64 = 30;
/// How long a file may be read, in seconds: an import reads its lines as fast as they are carried out.
const READING_S_MAX: u64 = 86_400;

/// Files of jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Files {
    store: Arc<dyn ObjectStore>,
    /// Where the store is one: the library does not list the drafts in it.
    folder: Option<Arc<FilePath>>,
    /// Of the log, which may be on the same disk.
    disk_space: Option<DiskSpace>,
}

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
        let (bucket, prefix) = match ObjectStoreUrl::read(source)? {
            None => return Ok(None),
            Some(ObjectStoreUrl::Folder(path)) => {
                return Self::folder(&path).map(Some).map_err(|error| invalid(OBJECT_STORE_URL, &error));
            }
            Some(ObjectStoreUrl::Bucket { bucket, prefix }) => (bucket, prefix),
        };
        let prefix = Path::parse(prefix).map_err(|error| invalid(OBJECT_STORE_URL, &error))?;
        // The library's client takes the process's provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let time = |seconds: u64| format!("{seconds} seconds");
        let store = AmazonS3Builder::from_env()
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ReadTimeout), time(SILENCE_S_MAX))
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), time(READING_S_MAX))
            .with_retry(RetryConfig { retry_timeout: Duration::from_secs(READING_S_MAX), ..RetryConfig::default() })
            .with_bucket_name(bucket)
            .build()
            .map_err(|error| invalid(OBJECT_STORE_URL, &error))?;
        Ok(Some(Self { store: Arc::new(PrefixStore::new(store, prefix)), folder: None, disk_space: None }))
    }

    /// A folder, made with the first file.
    ///
    /// # Errors
    /// The path cannot be one of a file in an object store.
    pub fn folder(path: &FilePath) -> Result<Self, FilesError> {
        let failed = |error| FilesError(path.display().to_string(), error);
        let absolute = std::path::absolute(path).map_err(|error| failed(error.into()))?;
        let prefix = Path::from_absolute_path(&absolute).map_err(|error| failed(error.into()))?;
        let store = Arc::new(PrefixStore::new(LocalFileSystem::new(), prefix));
        Ok(Self { store, folder: Some(absolute.into()), disk_space: None })
    }

    /// Takes nothing more while the log has no room: they may share a disk.
    #[must_use]
    pub fn beside(self, disk_space: DiskSpace) -> Self {
        Self { disk_space: Some(disk_space), ..self }
    }

    /// Asked before each part of a file is written.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`]: the log has no room.
    pub(crate) fn check_room(&self) -> io::Result<()> {
        let shortage = self.disk_space.as_ref().and_then(DiskSpace::shortage);
        shortage.map_or(Ok(()), |reason| Err(io::Error::new(io::ErrorKind::StorageFull, reason)))
    }

    /// Writes a file, which is there only once the writer is shut down.
    pub(crate) fn writer(&self, file: FileOf) -> BufWriter {
        BufWriter::with_capacity(Arc::clone(&self.store), file.path(), PART_BYTES)
            .with_max_concurrency(PARTS_AT_ONCE_MAX)
    }

    /// Reads a file from its beginning.
    pub(crate) async fn reader(
        &self,
        file: FileOf,
    ) -> Result<impl AsyncBufRead + Unpin + Send + use<>, object_store::Error> {
        let found = self.store.get(&file.path()).await?;
        Ok(StreamReader::new(found.into_stream().map_err(io::Error::other)))
    }

    /// How long a file is, in bytes.
    pub(crate) async fn length(&self, file: FileOf) -> Result<u64, object_store::Error> {
        Ok(self.store.head(&file.path()).await?.size)
    }

    /// A part of the result of a job, as it is read.
    ///
    /// # Errors
    /// The store does not answer, or the result is gone.
    pub async fn result(
        &self,
        job_id: Uuid,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, object_store::Error>>, object_store::Error> {
        if range.is_empty() {
            return Ok(futures_util::stream::empty().boxed());
        }
        let options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
        Ok(self.store.get_opts(&FileOf::Result(job_id).path(), options).await?.into_stream())
    }

    /// Both files of a job, as far as they are there.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn delete(&self, job_id: Uuid) -> Result<(), object_store::Error> {
        for file in [FileOf::Import(job_id), FileOf::Result(job_id)] {
            match self.store.delete(&file.path()).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Files {
    /// Imports whose files came whole before this age, at most so many.
    pub(crate) async fn imports_older_than(
        &self,
        age: Duration,
        files_max: usize,
    ) -> Result<Vec<Uuid>, object_store::Error> {
        let listed = self.store.list(Some(&Path::from(IMPORTS)));
        let old = listed.try_filter_map(|file| {
            let is_old = clock::now().signed_duration_since(file.last_modified).to_std().is_ok_and(|is| is > age);
            let id = file.location.filename().and_then(|name| Uuid::parse_str(name).ok());
            std::future::ready(Ok(id.filter(|_| is_old)))
        });
        old.take(files_max).try_collect().await
    }

    /// Removes what was written to half in the folder, by processes that died: what nobody has written to for so long. Drafts
    /// in S3 are for a rule of the bucket.
    pub(crate) async fn remove_drafts(&self, idle: Duration) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        for files in [IMPORTS, RESULTS] {
            // Others finish, abort and remove drafts meanwhile.
            match remove_drafts_in(&folder.join(files), idle).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

async fn remove_drafts_in(folder: &FilePath, idle: Duration) -> io::Result<()> {
    let mut entries = tokio::fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        // as the library names them
        let is_draft = entry.file_name().to_str().is_some_and(|name| name.contains('#'));
        if is_draft && entry.metadata().await?.modified()?.elapsed().is_ok_and(|is| is > idle) {
            tokio::fs::remove_file(entry.path()).await?;
        }
    }
    Ok(())
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
            Self::Import(id) => Path::from(format!("{IMPORTS}/{id}")),
            Self::Result(id) => Path::from(format!("{RESULTS}/{id}")),
        }
    }
}
