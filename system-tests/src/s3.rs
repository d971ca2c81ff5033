//! A server of S3's API that others wrote: `moto_server`, in memory.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::cluster::{free_port, temp_dir};
use crate::kafka::machine;
use crate::reaper;
use crate::wait::until;

const START_MS_MAX: u64 = 60_000;

/// A running server with one bucket; killed with the test process.
pub struct S3 {
    port: u16,
    child: Child,
    http: reqwest::Client,
}

impl S3 {
    /// The bucket.
    pub const BUCKET: &str = "primetrade-files";

    /// Starts one, empty.
    pub async fn start() -> S3 {
        let found = machine("need_moto && command -v moto_server").output().expect("bash");
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let program = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        let (dir, port) = (temp_dir("s3"), free_port());
        let log = fs::File::create(dir.join("log")).expect("log file");
        let mut command = std::process::Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().expect("log file")).stderr(log).spawn().expect("moto_server");
        reaper::kill_at_end(child.id());
        let s3 = S3 { port, child, http: crate::client::http() };
        let bucket = format!("{}/{}", s3.endpoint(), Self::BUCKET);
        until("S3 answers", Duration::from_millis(START_MS_MAX), || async {
            s3.http.put(&bucket).send().await.ok().filter(|answer| answer.status().is_success())
        })
        .await;
        s3
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What programs find it by.
    pub fn variables(&self, prefix: &str) -> Vec<(String, String)> {
        [
            ("PRIMETRADE_OBJECT_STORE_URL", format!("s3://{}/{prefix}", Self::BUCKET)),
            ("AWS_ENDPOINT", self.endpoint()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// The keys of all objects in the bucket.
    pub async fn keys(&self) -> Vec<String> {
        self.listed("list-type=2", "Key").await
    }

    /// The keys of uploads in parts that are not complete.
    pub async fn uploads(&self) -> Vec<String> {
        self.listed("uploads", "Key").await
    }

    async fn listed(&self, query: &str, element: &str) -> Vec<String> {
        let url = format!("{}/{}?{query}", self.endpoint(), Self::BUCKET);
        let answer = self.http.get(url).send().await.expect("S3").error_for_status().expect("a list");
        let xml = answer.text().await.expect("XML");
        let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
        xml.split(&begin).skip(1).filter_map(|rest| Some(rest.split_once(&end)?.0.to_owned())).collect()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        reaper::gone(self.child.id());
    }
}
