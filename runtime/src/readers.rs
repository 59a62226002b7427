//! Reads that may block, on a few threads.
//!
//! # Invariants
//!
//! - No more than [`READERS_MAX`] threads read at once, and each goes on while there is something to read: the
//!   blocking pool would have another thread for nearly each read, and each thread keeps memory of the allocator's.
//! - Who waits for a read holds nothing that another read needs: it may not be polled for as long as it likes.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

const READERS_MAX: usize = 16;

type Read = Box<dyn FnOnce() + Send>;

/// What is to be read, and how many threads do so.
#[derive(Default)]
pub(crate) struct Readers {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    reads: VecDeque<Read>,
    readers: usize,
}

impl Readers {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads on a thread that may block; in order of the calls.
    ///
    /// # Panics
    ///
    /// If `read` does.
    pub(crate) async fn read<T: Send + 'static>(self: &Arc<Self>, read: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, answer) = oneshot::channel();
        let read = Box::new(move || {
            // Nobody may be there any more to take it.
            let _ = done.send(catch_unwind(AssertUnwindSafe(read)));
        });
        self.put(read);
        match answer.await {
            Ok(Ok(read)) => read,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // The runtime ends before the read began; so does whoever waits here.
            Err(_) => std::future::pending().await,
        }
    }

    fn put(self: &Arc<Self>, read: Read) {
        let mut queue = self.queue();
        queue.reads.push_back(read);
        if queue.readers < READERS_MAX {
            queue.readers += 1;
            let readers = self.clone();
            drop(tokio::task::spawn_blocking(move || readers.work()));
        }
    }

    fn work(&self) {
        loop {
            let mut queue = self.queue();
            let Some(read) = queue.reads.pop_front() else {
                queue.readers -= 1;
                return;
            };
            drop(queue);
            read();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn reads_that_nobody_looks_after_keep_no_place_from_others() {
        let readers = Arc::new(Readers::default());
        let mut begun: Vec<_> = (0..2 * READERS_MAX).map(|_| Box::pin(readers.read(|| ()))).collect();
        for reading in &mut begun {
            assert!(futures_util::poll!(reading).is_pending());
        }
        let read = tokio::time::timeout(Duration::from_secs(60), readers.read(|| 1));
        assert_eq!(read.await, Ok(1), "it waits for those that were begun and left");
    }

    #[tokio::test]
    async fn few_read_at_once_and_a_panic_takes_no_place() {
        let (readers, at_once) = (Arc::new(Readers::default()), Arc::new(AtomicUsize::new(0)));
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
        assert!((1..=READERS_MAX).contains(&most), "{most}");
        assert_eq!(panics, 50);
        let ended = async {
            while readers.queue().readers > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("threads that have nothing to do end");
    }
}
