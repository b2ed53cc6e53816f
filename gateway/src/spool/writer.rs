//! Opening, appending, and the chores that no commit should wait for: closing epochs, deleting delivered ones, the
//! `delivered` file.

use std::collections::VecDeque;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::aside;
use super::disk;
use super::epoch::{self, Blank, Writing};
use super::error::Error;
use super::folder::{Folder, Mark};
use super::give_up::Note;
use super::losses::Losses;
use super::record::{Draft, Record, Stamp};
use super::recovery::{Named, Recovered};
use super::repair;
use super::room::Ground;
use super::tail::Tail;
use super::{Config, Disk, GivenUp, Known, Spool, State, WhenFull, epoch_name};
use crate::facts;

/// `delivered` is written at most this often (and before an epoch is deleted, and at the end): flash wears out.
const MARK_INTERVAL: Duration = Duration::from_secs(60);
/// Kept epochs give way early, so that what arrives need not wait for their deletion.
const HEADROOM_BYTES: u64 = 8 * 1024 * 1024;
/// How often a disk without room is looked at: others make room on it as well, and tell nobody.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The spool, for the one who appends.
#[derive(Debug)]
pub struct Writer {
    spool: Arc<Spool>,
    writing: Option<Writing>,
    /// An epoch whose name may be there already, though it is not in the row.
    begun: Option<u64>,
    next: u64,
    poisoned: bool,
    keeper: Option<JoinHandle<()>>,
}

/// What the keeper has to do.
#[derive(Debug, Default)]
pub(super) struct Chores {
    sweep: bool,
    mark: bool,
    /// Make the next epoch before it is needed.
    spare: bool,
    retired: Vec<Writing>,
    stop: bool,
}

impl Chores {
    pub fn sweep(&mut self) {
        self.sweep = true;
    }

    pub fn mark(&mut self) {
        self.mark = true;
    }
}

pub(super) fn open(config: &Config, now_ms: u64) -> Result<(Arc<Spool>, Writer), Error> {
    config.check()?;
    let folder = Folder::open(&config.folder, now_ms)?;
    let mut mark = folder.mark()?;
    let mut epochs = list_epochs(&folder)?;
    let mut losses = Losses::open(&config.folder)?;
    let named = Named::find(&folder, &mut mark, &epochs, &mut losses, random)?;
    let incarnation = named.incarnation;
    let note = Note::open(&config.folder, incarnation)?;
    finish_giving_up(&folder, &note.given_up, &mut epochs)?;
    let Recovered { next, renew, numbers } =
        named.go_on(&folder, &mut mark, &mut epochs, note.given_up.end)?;
    if config.when_full == WhenFull::DropOldest {
        match note.reserve() {
            // Something has to be delivered or deleted first; it is tried again when there is something to write.
            Err(error) if error.may_pass() => tracing::warn!(
                error = error.with_causes(),
                "the disk has no room for a note of what will be given up: that may have to wait for room"
            ),
            reserved => reserved?,
        }
    }
    // Whoever reads begins there: he will not come upon what is before it again.
    let begin = epochs.front().map_or(next, |oldest| oldest.first).min(mark.delivered.number);
    if let Err(error) = losses.forget_below(incarnation, begin) {
        tracing::debug!(error = error.with_causes(), "old losses are forgotten later");
    }
    let state = State {
        epochs,
        active: None,
        tail: Tail::default(),
        next,
        delivered: mark.delivered,
        in_stream: mark.delivered.number,
        given_up: note.given_up.end,
        disk: Disk::default(),
    };
    let spool = Arc::new(Spool {
        config: config.clone(),
        folder,
        incarnation,
        state: Mutex::new(state),
        reading: Mutex::new(None),
        numbers,
        aside_bytes: AtomicU64::new(aside::bytes(&config.folder)),
        losses: Mutex::new(losses),
        lost: Notify::new(),
        failing: Mutex::default(),
        note: Mutex::new(note),
        giving_up: Notify::new(),
        marking: Mutex::new(()),
        spare: Mutex::new(None),
        chores: Mutex::new(Chores { sweep: true, ..Chores::default() }),
        chores_changed: Condvar::new(),
        next: watch::Sender::new(next),
        blanks: AtomicU64::new(0),
        room_bytes: AtomicU64::new(0),
        room: Notify::new(),
    });
    spool.state().note_delivered(Instant::now());
    spool.look();
    let keeper = {
        let spool = spool.clone();
        let spawned =
            std::thread::Builder::new().name("spool-keeper".to_owned()).spawn(move || spool.keep(mark));
        spawned.map_err(Error::io("start a thread for", config.folder.clone()))?
    };
    let writer = Writer {
        spool: spool.clone(),
        writing: None,
        begun: None,
        next,
        poisoned: renew,
        keeper: Some(keeper),
    };
    Ok((spool, writer))
}

/// What of the epochs is there; what is half made or half deleted is removed.
pub(super) fn list_epochs(folder: &Folder) -> Result<VecDeque<Known>, Error> {
    let path = folder.epochs();
    repair::finish(&path)?;
    let mut firsts = Vec::new();
    for entry in fs::read_dir(&path).map_err(Error::io("list", &path))? {
        let entry = entry.map_err(Error::io("list", &path))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".new") || name.ends_with(".gone") {
            fs::remove_dir_all(entry.path()).map_err(Error::io("remove", entry.path()))?;
        } else if let Some(first) = name.parse().ok().filter(|&first| epoch_name(first) == name) {
            firsts.push(first);
        }
    }
    firsts.sort_unstable();
    let known = |first| {
        // A missing log is damage that reading will tell.
        let bytes =
            fs::metadata(path.join(epoch_name(first)).join("db")).map_or(0, |metadata| metadata.len());
        Known { first, bytes, delivered_at: None }
    };
    Ok(firsts.into_iter().map(known).collect())
}

/// What was written down as given up is told; if there was no time to delete it, that is done now.
pub(super) fn finish_giving_up(
    folder: &Folder,
    given_up: &GivenUp,
    epochs: &mut VecDeque<Known>,
) -> Result<(), Error> {
    let numbers = given_up.first..given_up.end;
    while epochs.len() > 1 && numbers.contains(&epochs[0].first) {
        epoch::remove(&epoch::hide(&folder.epochs().join(epoch_name(epochs[0].first)))?)?;
        epochs.pop_front();
    }
    Ok(())
}

pub(super) fn random() -> u64 {
    // Seeded by the operating system for every process, and again by the time and the process: it need not be secret, only never be the same.
    RandomState::new().hash_one((std::process::id(), Instant::now()))
}

impl Writer {
    /// Stores records; when it returns they are durable and readers have been told. Gives the number after the last.
    ///
    /// # Errors
    /// The step that failed. What of these records is on disk is unknown: the writer is poisoned and takes no more until
    /// [`Self::renew`].
    pub fn append(&mut self, drafts: &mut [Draft]) -> Result<u64, Error> {
        if self.poisoned {
            let path = self.spool.folder.epochs();
            return Err(Error::Damaged { path, what: "an earlier write failed".to_owned() });
        }
        self.poisoned = true;
        let next = self.store(drafts)?;
        self.poisoned = false;
        Ok(next)
    }

    /// After a failed append: lets go of the epoch that failed, so that the next append begins another behind what is durable.
    /// Whatever the failed append has left is hidden by that: it was not acknowledged, and may be given again.
    ///
    /// # Errors
    /// The disk does not let it be done now; may be tried again.
    pub fn renew(&mut self) -> Result<(), Error> {
        if !self.poisoned {
            return Ok(());
        }
        let next = self.spool.next_number();
        self.spool.state().active = None;
        if let Some(failed) = self.writing.take() {
            disk::let_go(failed);
            self.count_what_failed();
        }
        if let Some(begun) = self.begun {
            epoch::remove(&epoch::hide(&self.spool.epoch_path(begun))?)?;
            self.begun = None;
        }
        if self.spool.newest_from(next).is_some() {
            // Its name says where numbers go on, perhaps nothing else does.
            self.spool.put_mark(&self.spool.current_mark())?;
        }
        // Begun by the failed append: nothing in them was shown. The newest first, should this end half-way.
        while let Some(begun) = self.spool.newest_from(next) {
            let gone = epoch::hide(&self.spool.epoch_path(begun))?;
            self.spool.state().epochs.pop_back();
            epoch::remove(&gone)?;
        }
        self.next = next;
        self.poisoned = false;
        Ok(())
    }

    /// What the failed append has left on the disk is there as long as its epoch is.
    fn count_what_failed(&self) {
        let mut state = self.spool.state();
        if let Some(epoch) = state.epochs.back_mut()
            && let Ok(log) = fs::metadata(self.spool.epoch_path(epoch.first).join("db"))
        {
            epoch.bytes = log.len();
        }
        self.spool.count_room(&mut state);
    }

    fn store(&mut self, drafts: &mut [Draft]) -> Result<u64, Error> {
        let mut stored = Vec::with_capacity(drafts.len());
        // Everything below is on the disk: else this would not have begun.
        let stamp = Stamp { incarnation: self.spool.incarnation, commit: self.next };
        for draft in drafts {
            let count = u64::from(draft.count());
            if self.writing.as_ref().is_none_or(|writing| !writing.has_room(self.next, count)) {
                self.switch()?;
            }
            let writing = self.writing.as_mut().expect("switched to just now");
            stored.push(writing.append(self.next, stamp, draft)?);
            self.next += count;
        }
        let Some(writing) = &self.writing else { return Ok(self.next) };
        let began = Instant::now();
        writing.barrier()?;
        facts::synced(began.elapsed());
        self.spool.numbers.given_out(self.next);
        let bytes = writing.log_bytes()?;
        self.show(stored, bytes);
        if bytes >= self.spool.config.epoch_bytes {
            self.retire();
        }
        Ok(self.next)
    }

    /// Tells readers: everything up to here is durable.
    fn show(&self, stored: Vec<Record>, bytes: u64) {
        let mut state = self.spool.state();
        for record in stored {
            state.tail.push(record);
        }
        state.next = self.next;
        if let Some(epoch) = state.epochs.back_mut() {
            epoch.bytes = bytes;
        }
        if state.disk.trouble.take().is_some() {
            tracing::info!("the disk takes what is stored again");
        }
        drop(state);
        self.spool.next.send_replace(self.next);
        self.spool.look();
    }

    /// Begins a new epoch.
    fn switch(&mut self) -> Result<(), Error> {
        if let Some(full) = &self.writing {
            full.barrier()?;
            let bytes = full.log_bytes()?;
            if let Some(epoch) = self.spool.state().epochs.back_mut() {
                epoch.bytes = bytes;
            }
            self.retire();
        }
        // Not within the `match`: that would hold the lock while one is made.
        let spare = self.spool.spare().take();
        let blank = match spare {
            Some(spare) => spare,
            None => self.spool.make_blank()?,
        };
        self.begun = Some(self.next);
        let writing = blank.name(self.next, &self.spool.epoch_path(self.next))?;
        let bytes = writing.log_bytes()?;
        let mut state = self.spool.state();
        state.epochs.push_back(Known { first: self.next, bytes, delivered_at: None });
        state.active = Some(writing.epoch());
        drop(state);
        self.begun = None;
        self.writing = Some(writing);
        self.spool.chores().spare = true;
        self.spool.chores_changed.notify_one();
        Ok(())
    }

    /// Nothing more goes into this epoch.
    fn retire(&mut self) {
        if let Some(writing) = self.writing.take() {
            self.spool.state().active = None;
            let mut chores = self.spool.chores();
            chores.retired.push(writing);
            chores.sweep();
            self.spool.chores_changed.notify_one();
        }
    }

    /// Whether the keeper is there: without it nothing is ever deleted.
    pub fn is_kept(&self) -> bool {
        self.keeper.as_ref().is_some_and(|keeper| !keeper.is_finished())
    }

    /// Closes the spool: the `delivered` file is written, the epoch closed, the folder free for another process once the
    /// last handle is gone.
    pub fn close(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.retire();
        self.spool.chores().stop = true;
        self.spool.chores_changed.notify_one();
        if let Some(keeper) = self.keeper.take()
            && keeper.join().is_err()
        {
            tracing::error!("the spool's keeper panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The keeper's thread.
impl Spool {
    fn keep(&self, mut written: Mark) {
        let mut marked_at = Instant::now();
        loop {
            let (chores, timed_out) = self.wait_for_chores(written, marked_at);
            chores.retired.into_iter().for_each(disk::let_go);
            let current = self.current_mark();
            let due = chores.mark || chores.stop || timed_out;
            if due && current != written {
                // If it fails, it is not tried again at once.
                marked_at = Instant::now();
                if self.write_mark(&current) {
                    written = current;
                }
            }
            if chores.sweep && self.sweep(&mut written) {
                marked_at = Instant::now();
            }
            if chores.stop {
                return self.discard_spare();
            }
            if chores.spare {
                self.make_spare();
            }
        }
    }

    /// Sleeps until there is something to do, or the mark is due; for ever if nothing has changed.
    fn wait_for_chores(&self, written: Mark, marked_at: Instant) -> (Chores, bool) {
        let mut chores = self.chores();
        let mut looked_at = Instant::now();
        loop {
            if chores.sweep || chores.mark || chores.spare || chores.stop || !chores.retired.is_empty() {
                return (std::mem::take(&mut chores), false);
            }
            let left = MARK_INTERVAL.saturating_sub(marked_at.elapsed());
            let changed = self.current_mark().delivered != written.delivered;
            if changed && left.is_zero() {
                return (Chores::default(), true);
            }
            let full = self.state().disk.full.is_some();
            if full && looked_at.elapsed() >= LOOK_INTERVAL {
                drop(chores);
                self.look();
                looked_at = Instant::now();
                chores = self.chores();
                continue;
            }
            let kept_for = self.kept_for(&self.state());
            let not_before = LOOK_INTERVAL.saturating_sub(looked_at.elapsed());
            if kept_for == Some(Duration::ZERO) && not_before.is_zero() {
                return (Chores { sweep: true, ..Chores::default() }, false);
            }
            // What could not be deleted is not tried again at once.
            let due = kept_for.map(|left| left.max(not_before));
            let look = full.then_some(not_before);
            chores = match look.into_iter().chain(due).chain(changed.then_some(left)).min() {
                Some(left) => {
                    self.chores_changed.wait_timeout(chores, left).expect("nothing panics while it is held").0
                }
                None => self.chores_changed.wait(chores).expect("nothing panics while it is held"),
            };
        }
    }

    /// Making an epoch takes half a dozen syncs, naming it one: no commit has to wait for the former.
    fn make_spare(&self) {
        if self.spare().is_some() {
            return;
        }
        match self.make_blank() {
            Ok(blank) => *self.spare() = Some(blank),
            // The writer will try again when it needs one, and tell.
            Err(error) => _ = self.did(Err(error), "could not make the next epoch ahead"),
        }
    }

    /// Makes an epoch, or nothing at all.
    fn make_blank(&self) -> Result<Blank, Error> {
        let path = self.blank_path();
        Blank::make(&path).inspect_err(|_| {
            if let Err(error) = epoch::remove(&path) {
                tracing::debug!(
                    error = error.with_causes(),
                    "could not remove a half-made epoch; the next start will"
                );
            }
        })
    }

    /// The newest epoch, if it begins there or later.
    fn newest_from(&self, number: u64) -> Option<u64> {
        self.state().epochs.back().map(|epoch| epoch.first).filter(|&first| first >= number)
    }

    fn discard_spare(&self) {
        if let Some(spare) = self.spare().take()
            && let Err(error) = spare.discard()
        {
            tracing::warn!(
                error = error.with_causes(),
                "could not remove an unused epoch; the next start will"
            );
        }
    }

    fn current_mark(&self) -> Mark {
        let state = self.state();
        Mark { delivered: state.delivered, next: state.next }
    }

    /// Failing is no loss: the mark may be behind.
    fn write_mark(&self, mark: &Mark) -> bool {
        let written = self.put_mark(mark);
        self.did(written, "could not write down what has been delivered")
    }

    fn put_mark(&self, mark: &Mark) -> Result<(), Error> {
        let _alone = self.marking.lock().unwrap_or_else(PoisonError::into_inner);
        self.folder.write_mark(mark)
    }

    /// Whether a chore was done; why not is told once, however often it is tried, and whatever else is done in between.
    fn did(&self, done: Result<(), Error>, not_done: &'static str) -> bool {
        let mut state = self.state();
        let undone = &mut state.disk.undone;
        let Err(error) = done else {
            undone.remove(not_done);
            return true;
        };
        let error = error.with_causes();
        if undone.get(not_done) != Some(&error) {
            tracing::warn!(error, "{not_done}");
            undone.insert(not_done, error);
        }
        false
    }

    /// Deletes delivered epochs beyond what is kept. Says whether it wrote the mark.
    fn sweep(&self, written: &mut Mark) -> bool {
        let mut marked = false;
        // Whatever lies there is in nobody's way but its own.
        self.did(self.drop_aside(), "could not delete an epoch that was set aside");
        while let Some(first) = self.deletable() {
            let current = self.current_mark();
            // On a full disk it cannot be written before something is deleted. The next start takes what is not there any
            // more for delivered, as it is, and asks the stream for the rest.
            if current != *written && self.write_mark(&current) {
                *written = current;
                marked = true;
            }
            let deleted = self.delete_oldest(first);
            if !self.did(deleted, "could not delete a delivered epoch") {
                return marked;
            }
        }
        self.giving_up.notify_one();
        marked
    }

    fn delete_oldest(&self, first: u64) -> Result<(), Error> {
        let path = self.epoch_path(first);
        let kept = self.state().epochs.get(1).map(|epoch| epoch.first);
        if let Some(kept) = kept {
            // Else the next start would take it for lost, if there was no room for the mark.
            self.numbers.kept_from(kept)?;
        }
        // Nobody may be about to open it: what is not there would be told to be lost.
        let mut reading = self.reading();
        disk::let_go(reading.take_if(|(open, _)| *open == first));
        let mut state = self.state();
        // While the mark was being written the stream may have lost it, so that it has to be sent again.
        if self.deletable_in(&state) != Some(first) {
            return Ok(());
        }
        let gone = epoch::hide(&path)?;
        state.epochs.pop_front();
        self.count_room(&mut state);
        drop((state, reading));
        // It is out of the row: the next can go.
        let removed = self.remove_or_set_aside(&gone, first, kept.unwrap_or(first));
        self.did(removed, "could not remove a delivered epoch from the disk; the next start will");
        self.look();
        Ok(())
    }

    pub(super) fn is_crowded(&self, state: &State) -> bool {
        self.is_crowded_on(&self.ground(state))
    }

    /// Whether there is less room than what arrives may need while some is made.
    pub(super) fn is_crowded_on(&self, ground: &Ground) -> bool {
        ground.lacks(HEADROOM_BYTES + self.config.epoch_bytes)
    }
}
