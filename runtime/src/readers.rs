//! Reads that may block, on a few threads of their own.
//!
//! # Invariants
//!
//! - Who waits for a read holds nothing that another read needs: it may not be polled for as long as it likes.
//!
//! # What is absent on purpose
//!
//! - The runtime's blocking pool: it makes another thread for nearly each read of a busy machine, and each thread
//!   keeps memory of the allocator's.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;
use std::thread;

use crossbeam_channel::{Sender, unbounded};
use tokio::sync::oneshot;

use crate::threads::Blocking;

const READERS: usize = 8;

type Read = Box<dyn FnOnce() + Send>;

/// The threads, which begin with the first read and end with this.
pub(crate) struct Readers {
    blocking: Blocking,
    queue: OnceLock<Sender<Read>>,
}

impl Readers {
    /// Threads, or whoever reads.
    pub(crate) fn new(blocking: Blocking) -> Readers {
        Readers { blocking, queue: OnceLock::new() }
    }

    /// Reads on a thread that may block; in order of the calls.
    ///
    /// # Panics
    ///
    /// If `read` does.
    pub(crate) async fn read<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> T {
        if self.blocking == Blocking::Here {
            return read();
        }
        let (done, answer) = oneshot::channel();
        let read = Box::new(move || {
            // Nobody may be there any more to take it.
            let _ = done.send(catch_unwind(AssertUnwindSafe(read)));
        });
        let queue = self.queue.get_or_init(begin);
        queue.send(read).expect("the threads are there for as long as the queue");
        match answer.await.expect("every read is answered") {
            Ok(read) => read,
            Err(panic) => resume_unwind(panic),
        }
    }
}

fn begin() -> Sender<Read> {
    let (queue, reads) = unbounded::<Read>();
    for n in 0..READERS {
        let reads = reads.clone();
        let work = move || reads.iter().for_each(|read| read());
        thread::Builder::new().name(format!("reader-{n}")).spawn(work).expect("the system has room for a thread");
    }
    queue
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn reads_that_nobody_looks_after_keep_no_place_from_others() {
        let readers = Arc::new(Readers::new(Blocking::Pool));
        let mut begun: Vec<_> = (0..2 * READERS).map(|_| Box::pin(readers.read(|| ()))).collect();
        for reading in &mut begun {
            assert!(futures_util::poll!(reading).is_pending());
        }
        let read = tokio::time::timeout(Duration::from_secs(60), readers.read(|| 1));
        assert_eq!(read.await, Ok(1), "it waits for those that were begun and left");
    }

    #[tokio::test]
    async fn few_read_at_once_and_a_panic_ends_none() {
        let (readers, at_once) = (Arc::new(Readers::new(Blocking::Pool)), Arc::new(AtomicUsize::new(0)));
        let reads = (0..100).map(|n| {
            let (readers, at_once) = (readers.clone(), at_once.clone());
            tokio::spawn(async move {
                let read = move || {
                    let most = at_once.fetch_add(1, Ordering::SeqCst) + 1;
                    std::thread::yield_now();
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    assert!(n % 2 == 0, "as planned");
                    most
                };
                readers.read(read).await
            })
        });
        let (mut most, mut panics) = (0, 0);
        for read in reads.collect::<Vec<_>>() {
            match read.await {
                Ok(seen) => most = most.max(seen),
                Err(error) => panics += usize::from(error.is_panic()),
            }
        }
        assert!((1..=READERS).contains(&most), "{most}");
        assert_eq!(panics, 50);
    }
}
