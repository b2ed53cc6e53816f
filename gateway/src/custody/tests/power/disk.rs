//! A disk that forgets: what a process did to its files, and what is left of it when the power is cut at any moment.
//!
//! What may be gone, torn or out of order is all that POSIX allows, on any file system:
//! - a write is durable after a sync of its file that began later has returned; before, each sector of 512 bytes is by
//!   itself as it was before or after any of the writes since;
//! - a file's length is durable after such a sync; before, it is any it has had since, and what was not written is zero;
//! - a name is durable after a sync of its folder, and of nothing else; before, each change of a folder has happened
//!   or not by itself, or (as with a journal) all up to some moment and none after it. A renaming is one change.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SECTOR: usize = 512;
const ROOT: usize = 0;

/// One entry of a record; `recorder.c` says what they are.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub what: u8,
    pub node: u64,
    pub at: u64,
    pub a: Arc<[u8]>,
    pub b: Arc<[u8]>,
}

/// Reads a record.
pub(super) fn read_record(path: &Path) -> Vec<Entry> {
    let bytes = fs::read(path).expect("a record");
    let mut rest = &bytes[..];
    let mut entries = Vec::new();
    while let Some((head, after)) = rest.split_at_checked(32) {
        let number = |range: std::ops::Range<usize>| {
            let mut number = [0; 8];
            number[..range.len()].copy_from_slice(&head[range]);
            u64::from_ne_bytes(number)
        };
        let (a, b) = (usize_of(number(0..4)), usize_of(number(4..8)));
        let entry = Entry {
            what: head[24],
            node: number(8..16),
            at: number(16..24),
            a: after[..a].into(),
            b: after[a..a + b].into(),
        };
        entries.push(entry);
        rest = &after[a + b..];
    }
    assert!(rest.is_empty(), "the record is whole");
    entries
}

/// How much of what is not durable a cut leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Luck {
    /// How likely each sector, length and change of a folder is to be there.
    pub kept: f64,
    /// Changes of folders are there in their order, as far as there are any.
    pub in_order: bool,
}

/// The files and folders below one folder: as they are, and as they are durable.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
    /// The operating system's numbers of them, which it uses again.
    numbers: HashMap<u64, usize>,
    /// Entries so far.
    clock: u64,
    /// When a sync began that has not returned.
    syncs: HashMap<u64, u64>,
}

#[derive(Debug)]
enum Node {
    Folder(Folder),
    File(File),
}

#[derive(Debug, Default)]
struct Folder {
    durable: BTreeMap<String, usize>,
    now: BTreeMap<String, usize>,
    pending: Vec<(u64, Change)>,
}

#[derive(Debug)]
enum Change {
    Put(String, usize),
    Remove(String),
    Rename(String, String),
}

#[derive(Debug, Default)]
struct File {
    durable: Vec<u8>,
    now: Vec<u8>,
    pending: Vec<(u64, Write)>,
}

#[derive(Debug)]
enum Write {
    Bytes(usize, Arc<[u8]>),
    Length(usize),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Change::Put(name, node) => {
                names.insert(name.clone(), *node);
            }
            Change::Remove(name) => {
                names.remove(name);
            }
            Change::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

impl Write {
    fn apply(&self, bytes: &mut Vec<u8>) {
        bytes.resize(self.length_after(bytes.len()), 0);
        if let Write::Bytes(at, written) = self {
            bytes[*at..at + written.len()].copy_from_slice(written);
        }
    }

    fn length_after(&self, length: usize) -> usize {
        match self {
            Write::Bytes(at, written) => length.max(at + written.len()),
            Write::Length(length) => *length,
        }
    }
}

impl Disk {
    /// A disk on which everything below `root`, as it is now, is durable.
    pub fn of(root: &Path) -> Self {
        let (nodes, numbers) = (Vec::new(), HashMap::new());
        let mut disk = Self { root: root.to_owned(), nodes, numbers, clock: 0, syncs: HashMap::new() };
        assert_eq!(disk.take_in(root), ROOT);
        disk
    }

    fn take_in(&mut self, path: &Path) -> usize {
        let at = self.nodes.len();
        self.numbers.insert(fs::metadata(path).expect("there").ino(), at);
        if path.is_dir() {
            self.nodes.push(Node::Folder(Folder::default()));
            let names: BTreeMap<String, usize> =
                list(path).into_iter().map(|name| (name.clone(), self.take_in(&path.join(name)))).collect();
            self.nodes[at] = Node::Folder(Folder { durable: names.clone(), now: names, pending: Vec::new() });
        } else {
            let bytes = fs::read(path).expect("readable");
            self.nodes.push(Node::File(File { durable: bytes.clone(), now: bytes, pending: Vec::new() }));
        }
        at
    }

    /// What the process did next.
    pub fn apply(&mut self, entry: &Entry) {
        self.clock += 1;
        let path = |bytes: &Arc<[u8]>| PathBuf::from(String::from_utf8(bytes.to_vec()).expect("text"));
        match entry.what {
            b'c' => self.make(&path(&entry.a), entry.node, Node::File(File::default())),
            b'm' => self.make(&path(&entry.a), entry.node, Node::Folder(Folder::default())),
            b'w' => self.write(entry.node, Write::Bytes(usize_of(entry.at), entry.a.clone())),
            b't' => self.write(entry.node, Write::Length(usize_of(entry.at))),
            b'r' => {
                let ((folder, from), (other, to)) = (self.find(&path(&entry.a)), self.find(&path(&entry.b)));
                assert_eq!(folder, other, "nothing moves from folder to folder");
                self.change(folder, Change::Rename(from, to));
            }
            b'u' => {
                let (folder, name) = self.find(&path(&entry.a));
                self.change(folder, Change::Remove(name));
            }
            b's' => {
                self.syncs.insert(entry.at, self.clock);
            }
            b'S' => {
                let began = self.syncs.remove(&entry.at).expect("it has begun");
                self.synced(self.numbers[&entry.node], began);
            }
            b'p' => {}
            other => panic!("an entry {other} in the record"),
        }
    }

    /// The folder that a path is in, and its name there.
    fn find(&self, path: &Path) -> (usize, String) {
        let within = path.strip_prefix(&self.root).expect("only what is inside is recorded");
        let mut parts: Vec<&str> = within.iter().map(|part| part.to_str().expect("text")).collect();
        let name = parts.pop().expect("a name").to_owned();
        let folder = parts.into_iter().fold(ROOT, |at, part| match &self.nodes[at] {
            Node::Folder(folder) => folder.now[part],
            Node::File(_) => panic!("{} goes through a file", path.display()),
        });
        (folder, name)
    }

    fn make(&mut self, path: &Path, number: u64, node: Node) {
        let (folder, name) = self.find(path);
        let at = self.nodes.len();
        self.nodes.push(node);
        self.numbers.insert(number, at);
        self.change(folder, Change::Put(name, at));
    }

    fn change(&mut self, folder: usize, change: Change) {
        let clock = self.clock;
        let Node::Folder(folder) = &mut self.nodes[folder] else { panic!("a file is no folder") };
        change.apply(&mut folder.now);
        folder.pending.push((clock, change));
    }

    fn write(&mut self, number: u64, write: Write) {
        let clock = self.clock;
        let Node::File(file) = &mut self.nodes[self.numbers[&number]] else { panic!("a folder is no file") };
        write.apply(&mut file.now);
        file.pending.push((clock, write));
    }

    fn synced(&mut self, node: usize, began: u64) {
        match &mut self.nodes[node] {
            Node::Folder(folder) => {
                let before = folder.pending.partition_point(|(at, _)| *at < began);
                for (_, change) in folder.pending.drain(..before) {
                    change.apply(&mut folder.durable);
                }
            }
            Node::File(file) => {
                let before = file.pending.partition_point(|(at, _)| *at < began);
                for (_, write) in file.pending.drain(..before) {
                    write.apply(&mut file.durable);
                }
            }
        }
    }

    /// Makes what a cut of the power now leaves, in a folder that is there.
    pub fn cut(&self, luck: Luck, random: &mut fastrand::Rng, to: &Path) {
        // With a journal, everything up to here.
        let journal = if random.f64() < luck.kept { self.clock } else { random.u64(..=self.clock) };
        let mut happened = |at: u64| if luck.in_order { at <= journal } else { random.f64() < luck.kept };
        let mut names = HashMap::new();
        for (at, node) in self.nodes.iter().enumerate() {
            if let Node::Folder(folder) = node {
                let mut left = folder.durable.clone();
                let changes = folder.pending.iter().filter(|(at, _)| happened(*at));
                changes.for_each(|(_, change)| change.apply(&mut left));
                names.insert(at, left);
            }
        }
        self.lay_out(ROOT, &names, &mut |file| file.cut(luck.kept, random), to);
    }

    /// Makes everything as it is now, with nothing forgotten.
    pub fn lay_out_now(&self, to: &Path) {
        let folders = self.nodes.iter().enumerate().filter_map(|(at, node)| match node {
            Node::Folder(folder) => Some((at, folder.now.clone())),
            Node::File(_) => None,
        });
        self.lay_out(ROOT, &folders.collect(), &mut |file| file.now.clone(), to);
    }

    fn lay_out(
        &self,
        folder: usize,
        names: &HashMap<usize, BTreeMap<String, usize>>,
        contents: &mut impl FnMut(&File) -> Vec<u8>,
        to: &Path,
    ) {
        for (name, &node) in &names[&folder] {
            let to = to.join(name);
            match &self.nodes[node] {
                Node::Folder(_) => {
                    fs::create_dir(&to).expect("made");
                    self.lay_out(node, names, contents, &to);
                }
                Node::File(file) => fs::write(&to, contents(file)).expect("written"),
            }
        }
    }
}

impl File {
    fn cut(&self, kept: f64, random: &mut fastrand::Rng) -> Vec<u8> {
        let mut left = self.durable.clone();
        let mut lengths = vec![left.len()];
        // For each sector that was written since: how many of the writes have reached it.
        let mut reached: HashMap<usize, usize> = HashMap::new();
        for (at, (_, write)) in self.pending.iter().enumerate() {
            lengths.push(write.length_after(lengths[at]));
            let mut version =
                || if random.f64() < kept { random.usize(at..self.pending.len()) + 1 } else { 0 };
            match write {
                Write::Bytes(start, bytes) => {
                    left.resize(left.len().max(start + bytes.len()), 0);
                    for sector in start / SECTOR..(start + bytes.len()).div_ceil(SECTOR) {
                        let reached = *reached.entry(sector).or_insert_with(&mut version);
                        if at < reached {
                            let from = (sector * SECTOR).max(*start);
                            let to = ((sector + 1) * SECTOR).min(start + bytes.len());
                            left[from..to].copy_from_slice(&bytes[from - start..to - start]);
                        }
                    }
                }
                Write::Length(length) => {
                    // What is cut off and written again begins with zeros.
                    let length = (*length).min(left.len());
                    if random.f64() < kept {
                        left[length..].fill(0);
                    }
                }
            }
        }
        let length = if random.f64() < kept { lengths[random.usize(..lengths.len())] } else { lengths[0] };
        left.resize(length, 0);
        left
    }
}

/// What differs between two folders, in words; empty if nothing does.
pub(super) fn differences(one: &Path, other: &Path) -> Vec<String> {
    let (ours, theirs) = (list(one), list(other));
    if ours != theirs {
        return vec![format!("{} has {ours:?}, {} has {theirs:?}", one.display(), other.display())];
    }
    let differ = |name: String| {
        let (one, other) = (one.join(&name), other.join(&name));
        if one.is_dir() {
            return differences(&one, &other);
        }
        let same = fs::read(&one).expect("readable") == fs::read(&other).expect("readable");
        if same { Vec::new() } else { vec![format!("{} is another", one.display())] }
    };
    ours.into_iter().flat_map(differ).collect()
}

fn list(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("text")
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).expect("what fits on a disk fits in memory here")
}
