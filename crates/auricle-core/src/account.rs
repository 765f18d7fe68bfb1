//! How many bytes the process holds in memory on behalf of clients: one number that all who hold some add to.
//!
//! Each holder has its own bound and keeps to it; this says what they hold together, so that new sessions can be refused before
//! memory runs out. Costs one relaxed atomic addition for each change, no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number. Clones are the same account.
#[derive(Clone, Debug, Default)]
pub struct Account(Arc<AtomicUsize>);

impl Account {
    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A holder's part of it, empty yet.
    pub fn share(&self) -> Share {
        Share { account: self.clone(), bytes: 0 }
    }

    /// A part of it that is held as long as the share lives.
    pub fn holding(&self, bytes: usize) -> Share {
        let mut share = self.share();
        share.set(bytes);
        share
    }
}

/// What one holder holds. Gives it back when dropped.
#[derive(Debug, Default)]
pub struct Share {
    account: Account,
    bytes: usize,
}

impl Share {
    /// Says how many bytes it holds now.
    pub fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.account.0.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            self.account.0.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// Bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_a_dropped_one_gives_back_what_it_held() {
        let account = Account::default();
        let (mut a, mut b) = (account.share(), account.holding(7));
        a.set(100);
        b.set(5);
        assert_eq!((account.bytes(), a.bytes(), b.bytes()), (105, 100, 5));
        a.set(40);
        drop(b);
        assert_eq!(account.bytes(), 40);
        drop(a);
        assert_eq!(account.bytes(), 0);
    }

    #[test]
    fn holders_on_many_threads_leave_nothing_behind() {
        let account = Account::default();
        std::thread::scope(|scope| {
            for seed in 1..9_usize {
                let mut share = account.share();
                scope.spawn(move || (0..10_000).for_each(|turn| share.set(turn * seed % 4_096)));
            }
        });
        assert_eq!(account.bytes(), 0);
    }
}
