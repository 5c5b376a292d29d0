//! One task for each thing of a host, and the newest target of each in its mailbox.
//!
//! ```text
//! set(id, target) --no task--> spawned          --task there--> its mailbox holds the newest target, older ones are lost
//! ```
//! A task that has removed its thing closes its mailbox; what is wanted in just that moment is noticed by the next
//! [`Mailboxes::sweep`] and wanted anew.
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What shall become of a thing.
#[derive(Debug)]
pub enum Target<T> {
    /// Found on disk, and no wanted set has been received yet: look, do not touch.
    Unknown,
    /// It shall be like this.
    Wanted(Arc<T>),
    /// It shall go, with all that belongs to it.
    Gone,
}

impl<T> Clone for Target<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Unknown => Self::Unknown,
            Self::Wanted(wanted) => Self::Wanted(wanted.clone()),
            Self::Gone => Self::Gone,
        }
    }
}
impl<T: PartialEq> PartialEq for Target<T> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Wanted(one), Self::Wanted(other)) => one == other,
            (Self::Unknown, Self::Unknown) | (Self::Gone, Self::Gone) => true,
            _ => false,
        }
    }
}

/// First and longest pause after trouble.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How long a task leaves its thing alone after trouble: longer each time, until all is well or something else is wanted.
#[derive(Debug)]
pub struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(BACK_OFF.0)
    }
}

impl Pause {
    /// Sleeps, or is woken by a newer target.
    ///
    /// # Errors
    /// When the host is going down.
    pub async fn sleep<T>(&mut self, mailbox: &mut watch::Receiver<Target<T>>) -> Result<(), watch::error::RecvError> {
        let jitter = self.0.mul_f64(rand::random_range(0.75..1.25));
        match tokio::time::timeout(jitter, mailbox.changed()).await {
            Ok(told) => {
                told?;
                *self = Self::default();
            }
            Err(_) => self.0 = (self.0 * 2).min(BACK_OFF.1),
        }
        Ok(())
    }
}

/// The tasks of one kind of thing.
#[derive(Debug)]
pub struct Mailboxes<T> {
    boxes: Mutex<BTreeMap<String, watch::Sender<Target<T>>>>,
    tasks: Mutex<JoinSet<()>>,
}

impl<T> Default for Mailboxes<T> {
    fn default() -> Self {
        Self { boxes: Mutex::default(), tasks: Mutex::default() }
    }
}

impl<T: PartialEq> Mailboxes<T> {
    fn boxes(&self) -> MutexGuard<'_, BTreeMap<String, watch::Sender<Target<T>>>> {
        self.boxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a target; where there is no task, `task` makes one, unless nothing is `there` that could go.
    pub fn set<F>(
        &self,
        id: &str,
        target: Target<T>,
        there: impl FnOnce() -> bool,
        task: impl FnOnce(watch::Receiver<Target<T>>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut boxes = self.boxes();
        // A task that has removed its thing has closed its mailbox.
        if let Some(mailbox) = boxes.get(id).filter(|mailbox| !mailbox.is_closed()) {
            mailbox.send_if_modified(|old| {
                let new = *old != target;
                if new {
                    *old = target.clone();
                }
                new
            });
            // Closed in between: the target may not have been seen.
            if !mailbox.is_closed() {
                return;
            }
        }
        if target == Target::Gone && !there() {
            boxes.remove(id);
            return;
        }
        let mailbox = watch::Sender::new(target);
        let task = task(mailbox.subscribe());
        boxes.insert(id.to_owned(), mailbox);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Ids of all that has, or had, a task.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.boxes().keys().cloned().collect()
    }

    /// Whether it has, or had, a task.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.boxes().contains_key(id)
    }

    /// Forgets those whose task has ended.
    pub fn sweep(&self) {
        self.boxes().retain(|_, mailbox| !mailbox.is_closed());
    }

    /// Ends all tasks where they stand.
    pub async fn rest(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}
