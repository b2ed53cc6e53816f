//! The password file: lines of `name:hash`, hashes as `weir-gateway hash-password` makes them (argon2, PHC format).
//!
//! Verifying costs tens of milliseconds and megabytes by design, so only a few are verified at a time, off the runtime;
//! who comes while too many wait, or after too many wrong ones from its address (see `logins`), is turned away unchecked. A name that is not in the file costs as much as one that is, so that
//! names cannot be guessed by the clock.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use tokio::sync::Semaphore;

use super::logins::{Logins, Source};

/// Verified at a time: each takes a core for a while, and 19 MiB. Not all cores there are.
const CONCURRENT_MAX: usize = 2;
/// What they take together.
pub(super) const MEMORY_BYTES: u64 = CONCURRENT_MAX as u64 * 19 * 1024 * 1024;
/// How many may wait for that.
const WAITING_MAX: usize = 256;
/// The most memory a hash in the file may ask for.
const HASH_MEMORY_KIB_MAX: u32 = 256 * 1024;

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
    hashes: Arc<HashMap<String, String>>,
    /// What an unknown name is verified against.
    decoy: Arc<str>,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
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
            let parsed = PasswordHash::new(hash).map_err(|_| wrong("the hash cannot be read"))?;
            let params = Params::try_from(&parsed).map_err(|_| wrong("the hash is not argon2"))?;
            if params.m_cost() > HASH_MEMORY_KIB_MAX {
                return Err(wrong("the hash takes too much memory"));
            }
            if hashes.insert(name.to_owned(), hash.to_owned()).is_some() {
                return Err(wrong("the name is there twice"));
            }
        }
        let decoy = match hashes.values().next() {
            Some(hash) => hash.as_str().into(),
            None => hash("").into(),
        };
        Ok(Self {
            hashes: Arc::new(hashes),
            decoy,
            permits: Arc::new(Semaphore::new(concurrent())),
            waiting: AtomicUsize::new(0),
            logins: Mutex::default(),
            began: Instant::now(),
        })
    }

    /// Whether `password` is the password of `name`, as somebody at `source` says.
    pub async fn verify(&self, source: Source, name: &str, password: String) -> Verdict {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Verdict::Busy;
        }
        let _waiting = Waiting(&self.waiting);
        if !self.logins().begin(source, name, self.began.elapsed()) {
            return Verdict::TooMany;
        }
        let mut login = Login { passwords: self, source, name, right: None };
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return Verdict::Busy };
        let known = self.hashes.get(name).cloned();
        let decoy = Arc::clone(&self.decoy);
        let verified = tokio::task::spawn_blocking(move || {
            // It goes on when the client has left, so the permit goes with it.
            let _permit = permit;
            let right = matches_hash(&password, known.as_deref().unwrap_or(&decoy));
            right && known.is_some()
        });
        let right = verified.await.unwrap_or(false);
        login.right = Some(right);
        if right { Verdict::Right } else { Verdict::Wrong }
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().expect("nothing panics while it holds the lock")
    }
}

/// A login that is checked; however it ends, that is told.
struct Login<'a> {
    passwords: &'a Passwords,
    source: Source,
    name: &'a str,
    right: Option<bool>,
}

impl Drop for Login<'_> {
    fn drop(&mut self) {
        let now = self.passwords.began.elapsed();
        self.passwords.logins().end(self.source, self.name, self.right, now);
    }
}

fn concurrent() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores - 1).clamp(1, CONCURRENT_MAX)
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
                "the hash takes too much memory",
            ),
        ];
        for (file, line, what) in cases {
            assert_eq!(Passwords::parse(&file).err(), Some((line, what)), "{file}");
        }
    }
}
