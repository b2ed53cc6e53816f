//! Child processes that never outlive us, with their output kept in a file.
//!
//! A [`Process`] is killed when it is dropped. Should we ourselves be killed before that, the kernel kills it
//! (`setpriv --pdeathsig`, where there is one). That signal comes when the *thread* that started the child ends,
//! so one thread, which lives as long as we do, starts them all.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal};

use crate::wait::eventually;

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with `arguments`; what it prints goes to the end of the file `log`.
    pub fn start(name: &str, program: &Path, arguments: &[&str], log: &Path) -> Result<Process> {
        let output = append(log)?;
        let mut command = tied(program);
        command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = start(command).with_context(|| format!("starting {name} ({})", program.display()))?;
        Ok(Process { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// What this process is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// An error that quotes the log's end if the process has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                bail!("{} has ended ({status}); the end of its log:\n{}", self.name, tail(&self.log, 15))
            }
        }
    }

    /// Looks until `condition` gives a value, as [`eventually`] does, but no longer than the process runs.
    pub fn until<T>(
        &mut self,
        within: Duration,
        what: &str,
        mut condition: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        eventually(within, what, || match self.check_running() {
            Ok(()) => Ok(condition()?.map(Ok)),
            Err(ended) => Ok(Some(Err(ended))),
        })?
    }

    /// Waits for its end.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        eventually(within, &format!("the end of {}", self.name), || Ok(child.try_wait()?))
    }

    /// `kill -9`, as a power cut would end it, and waits until it is gone.
    pub fn kill9(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, as systemd would end it, and waits for its end.
    pub fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(within)
    }

    /// Stops it from running without ending it: its sockets stay open and nobody answers.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen process run on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGHUP: a nats-server reads its configuration again.
    pub fn hang_up(&self) -> Result<()> {
        self.signal(Signal::HUP)
    }

    /// Memory and processor time used until now (Linux only).
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.id())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| anyhow!("no such process id"))?;
        rustix::process::kill_process(id, signal).with_context(|| format!("signalling {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has used until now.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Resident memory.
    pub resident_bytes: u64,
    /// The most it ever had resident.
    pub resident_bytes_max: u64,
    /// Processor time, user and system.
    pub cpu: Duration,
}

impl Usage {
    /// Reads `/proc`.
    pub fn of(id: u32) -> Result<Usage> {
        /// `USER_HZ`: what Linux counts `/proc/*/stat` times in, on every architecture we run on.
        const TICKS_PER_SECOND: u64 = 100;
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).context("reading /proc")?;
        let kilobytes = |key: &str| -> Result<u64> {
            let line = status
                .lines()
                .find(|line| line.starts_with(key))
                .ok_or_else(|| anyhow!("no {key} in /proc"))?;
            Ok(line.split_whitespace().nth(1).unwrap_or_default().parse()?)
        };
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The second field is the program's name in parentheses and may hold anything.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let ticks: u64 =
            fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Usage {
            resident_bytes: kilobytes("VmRSS:")? * 1024,
            resident_bytes_max: kilobytes("VmHWM:")? * 1024,
            cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
        })
    }
}

/// The last `lines` of a file, for messages; empty if there is none.
#[must_use]
pub fn tail(file: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Runs a program to its end and gives its standard output; an error quotes what it wrote to standard error.
pub fn output(program: &Path, arguments: &[&str], within: Duration) -> Result<Finished> {
    let mut command = tied(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = start(command).with_context(|| format!("starting {}", program.display()))?;
    let id = child.id();
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match finished.recv_timeout(within) {
        Ok(output) => {
            let output = output?;
            Ok(Finished {
                status: output.status,
                out: String::from_utf8_lossy(&output.stdout).into_owned(),
                err: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        }
        Err(_) => {
            if let Some(id) = i32::try_from(id).ok().and_then(Pid::from_raw) {
                let _ = rustix::process::kill_process(id, Signal::KILL);
            }
            bail!(
                "{} {} did not end within {:.0} s",
                program.display(),
                arguments.join(" "),
                within.as_secs_f64()
            )
        }
    }
}

/// How a program ended and what it printed.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Finished {
    /// Its standard output if it ended well, else an error with all it said.
    pub fn success(self, what: &str) -> Result<String> {
        if !self.status.success() {
            bail!("{what}: {}\n{}{}", self.status, self.out, self.err);
        }
        Ok(self.out)
    }
}

fn append(log: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("opening {}", log.display()))
}

/// A command whose process the kernel kills when we end.
fn tied(program: &Path) -> Command {
    static SETPRIV: LazyLock<bool> = LazyLock::new(|| {
        let tried =
            Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    });
    if *SETPRIV {
        let mut command = Command::new("setpriv");
        // A Ctrl-C is for us, who then stop them in good order.
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).process_group(0);
        return command;
    }
    Command::new(program)
}

fn start(command: Command) -> Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static STARTER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in orders {
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, answer) = mpsc::channel();
    STARTER.send((command, reply)).map_err(|_| anyhow!("the thread that starts processes has ended"))?;
    Ok(answer.recv()??)
}
