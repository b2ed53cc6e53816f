//! An emulated board: QEMU runs the firmware's image, with a sensor, an EEPROM, a network cable and a plug to pull, and
//! a debug probe.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use weir_device::provision::{Host, Record};

use crate::probe::Probe;
use crate::process::{self, Process, Usage};
use crate::programs;
use crate::wait::eventually;

/// Under this address QEMU's user network has the host's loopback.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// A 24C256.
const EEPROM_LEN: usize = 32_768;
const START_WITHIN: Duration = Duration::from_secs(30);
const QMP_WITHIN: Duration = Duration::from_secs(30);
const SYMBOLS_WITHIN: Duration = Duration::from_secs(30);

/// A board and its files. Powered down and up again it has the same EEPROM.
pub struct Board {
    device: String,
    folder: PathBuf,
    process: Option<Process>,
    qmp: Option<BufReader<UnixStream>>,
}

impl Board {
    /// A board that is provisioned as `device` of the gateway at `gateway`, a port of this machine's loopback, and powered
    /// up; its files are in `folder`.
    pub fn start(folder: &Path, device: &str, gateway: SocketAddr) -> Result<Board> {
        fs::create_dir_all(folder)?;
        let mut board =
            Board { device: device.to_owned(), folder: folder.to_owned(), process: None, qmp: None };
        board.provision(gateway)?;
        board.power_up()?;
        Ok(board)
    }

    /// Writes the board's provisioning record, and nothing else, into its EEPROM.
    fn provision(&self, gateway: SocketAddr) -> Result<()> {
        let record = Record {
            device: self.device.parse().map_err(|error| anyhow!("{}: {error}", self.device))?,
            host: Host::Address(HOST),
            port: gateway.port(),
            password: None,
            seed: Some(fastrand::u64(..)),
        };
        let mut eeprom = record.write().map_err(|error| anyhow!("{error}"))?.to_vec();
        eeprom.resize(EEPROM_LEN, 0xFF);
        fs::write(self.eeprom(), eeprom)?;
        Ok(())
    }

    /// Powers it up.
    pub fn power_up(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} is powered", self.device);
        let (socket, probe) = (self.folder.join("qmp"), self.probe_socket());
        let _ = fs::remove_file(&socket);
        let _ = fs::remove_file(&probe);
        let image = image()?;
        // The UART's log is one over all power-ups.
        let arguments = [
            "-M lm3s6965evb -display none -nodefaults".to_owned(),
            format!("-kernel {}", text(&image)?),
            "-netdev user,id=cable".to_owned(),
            "-net nic,model=stellaris,netdev=cable".to_owned(),
            "-device tmp105,bus=i2c,address=0x48,id=thermometer".to_owned(),
            format!("-drive if=none,id=eeprom,format=raw,file={}", text(&self.eeprom())?),
            format!("-device at24c-eeprom,bus=i2c,address=0x50,rom-size={EEPROM_LEN},drive=eeprom"),
            format!("-chardev file,id=log,append=on,path={}", text(&self.log_file())?),
            "-serial chardev:log".to_owned(),
            format!("-chardev socket,id=probe,server=on,wait=off,path={}", text(&probe)?),
            "-gdb chardev:probe".to_owned(),
            format!("-qmp unix:{},server=on,wait=off", text(&socket)?),
        ];
        let arguments: Vec<&str> = arguments.iter().flat_map(|argument| argument.split(' ')).collect();
        let output = self.folder.join("qemu.log");
        let mut process = Process::start(&self.device, Path::new("qemu-system-arm"), &arguments, &output)?;
        let stream =
            process.until(START_WITHIN, "QEMU's monitor", || Ok(UnixStream::connect(&socket).ok()))?;
        stream.set_read_timeout(Some(QMP_WITHIN))?;
        self.process = Some(process);
        let mut qmp = BufReader::new(stream);
        read_line(&mut qmp).context("QEMU's greeting")?;
        self.qmp = Some(qmp);
        self.monitor("qmp_capabilities", &json!({}))?;
        Ok(())
    }

    /// Cuts the power: `kill -9`.
    pub fn cut_power(&mut self) -> Result<()> {
        self.qmp = None;
        self.process.take().context("the board is not powered")?.kill9()
    }

    /// Its name.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Sets what its sensor measures, in °C.
    pub fn set_temperature(&mut self, celsius: f64) -> Result<()> {
        #[expect(clippy::cast_possible_truncation, reason = "thousandths of a degree")]
        let thousandths = (celsius * 1000.0) as i64;
        let arguments = json!({"path": "/machine/peripheral/thermometer", "property": "temperature", "value": thousandths});
        self.monitor("qom-set", &arguments)
    }

    /// Pulls its network cable, or puts it back.
    pub fn set_cable(&mut self, plugged: bool) -> Result<()> {
        self.monitor("set_link", &json!({"name": "cable", "up": plugged}))
    }

    /// Its reset pin.
    pub fn reset(&mut self) -> Result<()> {
        self.monitor("system_reset", &json!({}))
    }

    /// Halts it, and has a debugger's hands on it until the probe is let go.
    pub fn halt(&mut self) -> Result<Probe> {
        let process = self.process.as_mut().context("the board is not powered")?;
        process.check_running()?;
        Probe::attach(&self.probe_socket())
    }

    /// What it has written to its UART, over all power-ups.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.log_file())?).into_owned())
    }

    /// Waits for a line of the log in which `read` finds something.
    pub fn await_log<T>(&self, within: Duration, what: &str, read: impl Fn(&str) -> Option<T>) -> Result<T> {
        eventually(within, &format!("{what} in the log of {}", self.device), || {
            let log = self.log()?;
            match log.lines().find_map(&read) {
                Some(found) => Ok(Some(found)),
                None => bail!("the log is\n{log}"),
            }
        })
    }

    /// The numbers of its boots, oldest first: every power-up logs one.
    pub fn boots(&self) -> Result<Vec<u64>> {
        let number = |line: &str| line.split_once(", boot ")?.1.split(' ').next()?.parse().ok();
        Ok(self.log()?.lines().filter_map(number).collect())
    }

    /// How often it has told how much of its stack it used: each boot does so after its first sample, at least.
    pub fn samples_told(&self) -> Result<usize> {
        Ok(self.log()?.lines().filter(|line| line.contains("stack: ")).count())
    }

    /// All that its EEPROM holds now.
    pub fn stored(&self) -> Result<Vec<u8>> {
        fs::read(self.eeprom()).with_context(|| format!("the EEPROM of {}", self.device))
    }

    /// What the emulator has used of this machine until now.
    pub fn usage(&self) -> Result<Usage> {
        self.process.as_ref().context("the board is not powered")?.usage()
    }

    /// Has QEMU's monitor do something, and fails as it fails.
    fn monitor(&mut self, command: &str, arguments: &Value) -> Result<()> {
        let qmp = self.qmp.as_mut().context("the board is not powered")?;
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(qmp.get_mut(), "{request}")?;
        loop {
            let answer: Value = serde_json::from_str(&read_line(qmp)?)?;
            if answer.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = answer.get("error") {
                bail!("{command} {arguments}: {error}");
            }
            // Else it is an event.
        }
    }

    fn eeprom(&self) -> PathBuf {
        self.folder.join("eeprom")
    }

    fn probe_socket(&self) -> PathBuf {
        self.folder.join("probe")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("uart.log")
    }
}

fn read_line(qmp: &mut BufReader<UnixStream>) -> Result<String> {
    let mut line = String::new();
    ensure!(qmp.read_line(&mut line)? > 0, "QEMU has closed its monitor");
    Ok(line)
}

fn text(path: &Path) -> Result<&str> {
    let text = path.to_str().context("a folder that is not UTF-8")?;
    // Arguments are taken apart at spaces, QEMU's at commas.
    ensure!(!text.contains([' ', ',']), "{text} has a space or a comma in it");
    Ok(text)
}

/// Where in the program a function of this name begins, by the image's symbols.
pub fn function(name: &str) -> Result<u32> {
    let image = image()?;
    // What measures the image after the build is of the same package.
    let symbols = process::output(Path::new("nm"), &[text(&image)?], SYMBOLS_WITHIN)?.success("nm")?;
    let found = symbols.lines().find_map(|line| line.strip_suffix(&format!(" T {name}")));
    let address = found.with_context(|| format!("the image has no function {name}"))?;
    // The lowest bit tells the instruction set, and is no part of the place.
    Ok(u32::from_str_radix(address, 16)? & !1)
}

/// The image of the emulated board, built if it is missing or old.
fn image() -> Result<PathBuf> {
    programs::firmware("qemu-lm3s", "thumbv7m-none-eabi")
}
