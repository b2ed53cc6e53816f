//! The password file: lines of `name:hash`, hashes as `weir-gateway hash-password` makes them (argon2, PHC format).
//!
//! Verifying costs tens of milliseconds and megabytes by design, so only a few are verified at a time, off the runtime, in
//! memory that is counted; who comes while too many wait, whose turn does not come in time, or who comes after too many wrong
//! ones (see `logins`), is turned away unchecked, and that is not held against it. A name that is not in the file costs as much
//! as one that is, so that names cannot be guessed by the clock.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::logins::{Logins, Source};

/// Verified at a time: each takes a core for a while. Not all cores there are.
const CONCURRENT_MAX: u32 = 2;
/// What they take together: as many hashes of our own (argon2's default, 19 MiB), or one that asks for more.
const MEMORY_KIB: u32 = CONCURRENT_MAX * Params::DEFAULT_M_COST;
/// The same, in bytes.
pub(super) const MEMORY_BYTES: u64 = MEMORY_KIB as u64 * 1024;
/// How often a hash in the file may have argon2 go over its memory: ten times what ours do.
const PASSES_MAX: u32 = 10 * Params::DEFAULT_T_COST;
/// How many may wait for that.
const WAITING_MAX: usize = 256;
/// Whose turn has not come after this long is told that we are busy: few clients wait longer for their CONNACK.
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// What is wrong with a password file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read the password file {}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line is not `name:hash`.
    #[error("{}:{line}: {what}; a line is `name:hash`, as `weir-gateway hash-password` prints it", file.display())]
    Line {
        /// Which file.
        file: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// How a login ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// Too many are waiting; it may be right.
    Busy,
    /// Too many were wrong from there, or are being checked; it may be right.
    TooMany,
}

/// The names and their hashes.
#[derive(Debug)]
pub(super) struct Passwords {
    hashes: HashMap<String, Hash>,
    /// What an unknown name is verified against.
    decoy: Hash,
    /// One for each KiB that may be in use.
    memory: Arc<Semaphore>,
    waiting: AtomicUsize,
    turn_within: Duration,
    logins: Arc<Tried>,
}

/// A hash of the file, and how much of the memory it takes.
#[derive(Debug, Clone)]
struct Hash {
    text: Arc<str>,
    memory_kib: u32,
}

/// Who tried to log in, shared with the checks that go on when their client has gone.
#[derive(Debug)]
struct Tried {
    logins: Mutex<Logins>,
    began: Instant,
}

impl Passwords {
    pub fn load(file: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| Error::Unreadable { file: file.into(), source })?;
        Self::parse(&text).map_err(|(line, what)| Error::Line { file: file.into(), line, what })
    }

    fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut hashes = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what| (index + 1, what);
            let (name, hash) = line.split_once(':').ok_or(wrong("there is no `:`"))?;
            let hash = Hash::read(hash).map_err(wrong)?;
            if hashes.insert(name.to_owned(), hash).is_some() {
                return Err(wrong("the name is there twice"));
            }
        }
        let decoy = match hashes.values().next() {
            Some(hash) => hash.clone(),
            None => Hash::read(&hash("")).expect("it is one of our own"),
        };
        Ok(Self {
            hashes,
            decoy,
            memory: Arc::new(Semaphore::new(MEMORY_KIB as usize)),
            waiting: AtomicUsize::new(0),
            turn_within: TURN_WITHIN,
            logins: Arc::new(Tried { logins: Mutex::default(), began: Instant::now() }),
        })
    }

    /// Whether `password` is the password of `name`, as somebody at `source` says.
    pub async fn verify(&self, source: Source, name: &str, password: String) -> Verdict {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Verdict::Busy;
        }
        let _waiting = Waiting(&self.waiting);
        let Some(login) = Login::begin(&self.logins, source, name) else { return Verdict::TooMany };
        let known = self.hashes.get(name);
        let is_known = known.is_some();
        let hash = known.unwrap_or(&self.decoy).clone();
        let share = MEMORY_KIB / concurrent();
        let memory = Arc::clone(&self.memory).acquire_many_owned(hash.memory_kib.max(share));
        let Ok(Ok(memory)) = timeout(self.turn_within, memory).await else { return Verdict::Busy };
        let verified = tokio::task::spawn_blocking(move || {
            // It goes on when the client has left, and tells how it went all the same.
            let (_memory, mut login) = (memory, login);
            let right = matches_hash(&password, &hash.text) && is_known;
            login.right = Some(right);
            right
        });
        match verified.await {
            Ok(true) => Verdict::Right,
            Ok(false) => Verdict::Wrong,
            // It was not checked: the machine has no memory, or goes down.
            Err(_) => Verdict::Busy,
        }
    }
}

impl Hash {
    /// Reads a hash and holds it to what one may cost.
    fn read(text: &str) -> Result<Self, &'static str> {
        let parsed = PasswordHash::new(text).map_err(|_| "the hash cannot be read")?;
        let params = Params::try_from(&parsed).map_err(|_| "the hash is not argon2")?;
        if params.m_cost() > MEMORY_KIB {
            return Err("the hash takes too much memory (argon2's m; allowed: 38912)");
        }
        if params.t_cost() > PASSES_MAX {
            return Err("the hash takes too long (argon2's t; allowed: 20)");
        }
        Ok(Hash { text: text.into(), memory_kib: params.m_cost() })
    }
}

/// A login that is checked, or waits to be; however it ends, that is told.
struct Login {
    tried: Arc<Tried>,
    source: Source,
    name: Box<str>,
    right: Option<bool>,
}

impl Login {
    /// `None` if it may not be checked now.
    fn begin(tried: &Arc<Tried>, source: Source, name: &str) -> Option<Login> {
        let may = tried.logins().begin(source, name, tried.began.elapsed());
        may.then(|| Login { tried: Arc::clone(tried), source, name: name.into(), right: None })
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let now = self.tried.began.elapsed();
        self.tried.logins().end(self.source, &self.name, self.right, now);
    }
}

impl Tried {
    fn logins(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().expect("nothing panics while it holds the lock")
    }
}

fn concurrent() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores - 1).unwrap_or(u32::MAX).clamp(1, CONCURRENT_MAX)
}

/// Counts down also when the login is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn matches_hash(password: &str, hash: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

/// The hash of a password for a line of the password file, with a fresh salt.
///
/// # Panics
/// If the machine has no source of randomness.
#[must_use]
pub fn hash(password: &str) -> String {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.expect("the parameters are the library's own and the password is shorter than 4 GiB").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anywhere() -> Source {
        Source::from(std::net::IpAddr::from([127, 0, 0, 1]))
    }

    #[tokio::test]
    async fn only_the_right_password_of_the_right_name_is_right() {
        let file = format!("# people\n\nalice:{}\nbob:{}\n", hash("one"), hash("two"));
        let passwords = Passwords::parse(&file).unwrap();
        let from = |last: u8| Source::from(std::net::IpAddr::from([127, 0, 0, last]));
        let verify =
            |name: &'static str, password: &str| passwords.verify(from(1), name, password.to_owned());
        assert_eq!(verify("alice", "one").await, Verdict::Right);
        assert_eq!(verify("bob", "two").await, Verdict::Right);
        for (name, password) in [("alice", "two"), ("", "two"), ("carol", "one"), ("", "")] {
            assert_eq!(verify(name, password).await, Verdict::Wrong, "{name} {password}");
        }
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), 0);
        // From there no more are checked, but from elsewhere.
        assert_eq!(verify("dave", "x").await, Verdict::Wrong);
        assert_eq!(verify("dave", "x").await, Verdict::TooMany);
        assert_eq!(passwords.verify(from(2), "alice", "one".to_owned()).await, Verdict::Right);
        assert_eq!(verify("bob", "two").await, Verdict::Right, "it has logged in before");
    }

    #[tokio::test]
    async fn nobody_is_anybody_in_an_empty_file() {
        let passwords = Passwords::parse("").unwrap();
        assert_eq!(passwords.verify(anywhere(), "", String::new()).await, Verdict::Wrong);
    }

    #[tokio::test]
    async fn too_many_logins_are_turned_away_at_once() {
        let passwords = Passwords::parse("").unwrap();
        passwords.waiting.store(WAITING_MAX, Ordering::Relaxed);
        assert_eq!(passwords.verify(anywhere(), "a", String::new()).await, Verdict::Busy);
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), WAITING_MAX);
    }

    #[tokio::test]
    async fn that_we_are_slow_is_not_held_against_who_waits() {
        let mut passwords = Passwords::parse(&format!("alice:{}", hash("one"))).unwrap();
        passwords.turn_within = Duration::from_millis(1);
        let memory = Arc::clone(&passwords.memory).acquire_many_owned(MEMORY_KIB).await.unwrap();
        for _ in 0..20 {
            assert_eq!(passwords.verify(anywhere(), "alice", "one".to_owned()).await, Verdict::Busy);
        }
        drop(memory);
        passwords.turn_within = TURN_WITHIN;
        assert_eq!(passwords.verify(anywhere(), "alice", "one".to_owned()).await, Verdict::Right);
    }

    #[tokio::test]
    async fn a_guess_counts_though_its_client_does_not_wait_for_the_answer() {
        let passwords = Passwords::parse(&format!("alice:{}", hash("one"))).unwrap();
        let (mut guesses, mut checked) = (0, 0);
        while checked < 5 {
            guesses += 1;
            let name = format!("guess-{guesses}");
            let guess = passwords.verify(anywhere(), &name, "guess".to_owned());
            // Long enough to begin, and not to end.
            drop(timeout(Duration::from_millis(1), guess).await);
            // It ends all the same, and then its memory is there again.
            drop(passwords.memory.acquire_many(MEMORY_KIB).await);
            checked = passwords.logins.logins().failures(anywhere());
            assert!(guesses < 100, "{checked} of {guesses} counted");
        }
        assert_eq!(passwords.verify(anywhere(), "alice", "one".to_owned()).await, Verdict::TooMany);
    }

    #[tokio::test]
    async fn hashes_that_take_more_memory_take_turns() {
        let large = Params::new(MEMORY_KIB, 1, 1, None).unwrap();
        let large = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, large);
        let large = large.hash_password(b"one").unwrap().to_string();
        let passwords = Passwords::parse(&format!("alice:{large}")).unwrap();
        let half = passwords.memory.acquire_many(MEMORY_KIB / 2).await.unwrap();
        let mut verify = std::pin::pin!(passwords.verify(anywhere(), "alice", "one".to_owned()));
        let waited = timeout(Duration::from_millis(500), &mut verify).await;
        assert!(waited.is_err(), "it was checked in memory that is in use");
        drop(half);
        assert_eq!(verify.await, Verdict::Right);
    }

    #[test]
    fn a_bad_line_is_named() {
        let one = hash("x");
        let cases = [
            ("alice".to_owned(), 1, "there is no `:`"),
            ("\nalice:secret".to_owned(), 2, "the hash cannot be read"),
            (format!("a:{one}\na:{one}"), 2, "the name is there twice"),
            (
                one.replace("m=19456", "m=4000000").replacen('$', "a:$", 1),
                1,
                "the hash takes too much memory (argon2's m; allowed: 38912)",
            ),
            (
                one.replace("m=19456", "m=38913").replacen('$', "a:$", 1),
                1,
                "the hash takes too much memory (argon2's m; allowed: 38912)",
            ),
            (
                one.replace("t=2", "t=21").replacen('$', "a:$", 1),
                1,
                "the hash takes too long (argon2's t; allowed: 20)",
            ),
        ];
        for (file, line, what) in cases {
            assert_eq!(Passwords::parse(&file).err(), Some((line, what)), "{file}");
        }
    }
}
