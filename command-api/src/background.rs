//! What runs beside the requests.

use backends::database::Pool;
use event_store::TailReader;
use jobs::AccountRecords;
use process::background::Background;

use crate::api::CommandApi;
use crate::job::shown_text;

impl CommandApi {
    /// Purges in `background` what was deleted 30 days ago, and where there are files carries out jobs. These read tasks by
    /// `log`, a pool [in index order](event_store::tail::IN_INDEX_ORDER), and what is known of accounts from `account`; how
    /// far they are is written to the read database.
    pub fn work_in(&self, background: &mut Background, log: Pool, read_pool: Pool, account: AccountRecords) {
        let stop = background.stop.clone();
        background.spawn("purge of what was deleted", self.executor().clone().purge(stop.clone()));
        match self.worker(TailReader::new(log, None), account) {
            Some(worker) => {
                let publishing = self.jobs().clone().publish(read_pool, shown_text, stop.clone());
                background.spawn("publication of jobs", publishing);
                background.spawn("worker on jobs", worker.run(stop));
            }
            None => tracing::warn!("without PRIMETRADE_OBJECT_STORE_URL there are no imports and exports"),
        }
    }
}
