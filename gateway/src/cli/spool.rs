//! `weir-gateway spool`: of a running gateway; `spool verify` and `spool repair`: of a stopped one.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::arguments::{Place, Spool, SpoolTask};
use super::show;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::value::show as bytes;
use crate::spool::{self, EpochReport, Gone, Repaired, Report};

/// Something is damaged.
const DAMAGED: u8 = 3;
/// Holes that are shown of one epoch; `--json` has all.
const HOLES_SHOWN_MAX: usize = 20;

pub(super) fn act(spool: &Spool) -> Result<ExitCode> {
    match (&spool.task, &spool.ask) {
        (Some(SpoolTask::Verify { place, json }), _) => verify(place, *json),
        (Some(SpoolTask::Repair { place, dry_run, json }), _) => repair(place, *dry_run, *json),
        (None, Some(ask)) => show::spool(ask).map(|()| ExitCode::SUCCESS),
        (None, None) => bail!("neither --config nor --admin"),
    }
}

fn folder(place: &Place) -> Result<PathBuf> {
    match (&place.folder, &place.config) {
        (Some(folder), _) => Ok(folder.clone()),
        (None, Some(file)) => Ok(Config::load(file)?.spool.folder),
        (None, None) => bail!("neither --config nor --folder"),
    }
}

/// What to say if a gateway has it, or somebody else owns it.
fn stopped<T>(done: Result<T, spool::Error>) -> Result<T> {
    match done {
        Err(error @ spool::Error::InUse { .. }) => Err(error).context(
            "stop the gateway first (systemctl stop weir-gateway); while it runs, status tells of damage",
        ),
        Err(error @ spool::Error::NotOurs { owner, .. }) => Err(error).with_context(|| {
            format!(
                "a repair is done by the user whose spool it is, who has to delete later what it makes: \
                 sudo -u '#{owner}' weir-gateway spool repair ..."
            )
        }),
        done => Ok(done?),
    }
}

fn verify(place: &Place, json: bool) -> Result<ExitCode> {
    let report = stopped(spool::inspect(&folder(place)?))?;
    if json {
        show::json(&serde_json::to_value(&report).context("cannot write JSON")?)?;
    } else {
        print(&report);
    }
    Ok(code(report.sound))
}

fn repair(place: &Place, dry: bool, json: bool) -> Result<ExitCode> {
    let folder = folder(place)?;
    let repaired = stopped(spool::repair(&folder, dry, Clock::system().unix_ms()))?;
    if json {
        show::json(&serde_json::to_value(&repaired).context("cannot write JSON")?)?;
    } else {
        print_repaired(&repaired);
    }
    Ok(code(repaired.is_sound()))
}

fn code(sound: bool) -> ExitCode {
    if sound { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) }
}

fn print(report: &Report) {
    let mut table = show::table();
    table.set_header(["epoch", "first", "last", "records", "uplinks", "gone", "bytes", "state"]);
    for epoch in &report.epochs {
        table.add_row([
            epoch.name.clone(),
            epoch.first.to_string(),
            epoch.end.saturating_sub(1).to_string(),
            epoch.records.to_string(),
            epoch.uplinks.to_string(),
            epoch.gone_count().to_string(),
            bytes(epoch.bytes),
            state(epoch).to_owned(),
        ]);
    }
    println!("{table}");
    if let Some(gone) = &report.gone_before {
        println!("\n{} are in no epoch{}", numbers(gone), settled(gone));
    }
    for file in &report.files {
        println!("\n{}: {}", file.file, file.what);
    }
    for epoch in report.epochs.iter().filter(|epoch| !epoch.gone.is_empty() || epoch.trouble.is_some()) {
        println!("\n{}: {} of {} uplinks are gone", epoch.name, epoch.gone_count(), epoch.end - epoch.first);
        if let Some(trouble) = &epoch.trouble {
            println!("  {trouble}");
        }
        for gone in epoch.gone.iter().take(HOLES_SHOWN_MAX) {
            let (behind, before) = (gone.behind_byte, gone.before_byte);
            println!(
                "  {}, between the bytes {behind} and {before} of its log{}",
                numbers(gone),
                settled(gone)
            );
        }
        if let Some(more @ 1..) = epoch.gone.len().checked_sub(HOLES_SHOWN_MAX) {
            println!("  and {more} more places (--json has all)");
        }
        for (from, to) in &epoch.unreadable {
            println!("  the disk does not read its bytes {from} to {}", to - 1);
        }
    }
    let delivered = report.delivered.map_or("unknown".to_owned(), |number| number.to_string());
    let incarnation = report.incarnation.as_deref().unwrap_or("unknown");
    println!("\nincarnation {incarnation}; next number {}; delivered below {delivered}", report.next);
    println!("{}", if report.sound { "The spool is sound." } else { "The spool is DAMAGED." });
}

fn state(epoch: &EpochReport) -> &'static str {
    match () {
        () if epoch.is_damaged() => "DAMAGED",
        () if epoch.old => "of an older version, not looked into",
        () if !epoch.gone.is_empty() => "sound, what is gone is settled",
        () => "sound",
    }
}

fn numbers(gone: &Gone) -> String {
    if gone.from == gone.to {
        format!("number {}", gone.from)
    } else {
        format!("numbers {} to {}", gone.from, gone.to)
    }
}

fn settled(gone: &Gone) -> &'static str {
    if gone.settled { " (settled: told, or told after the next start)" } else { "" }
}

fn print_repaired(repaired: &Repaired) {
    print(&repaired.before);
    println!();
    let would = if repaired.done { "" } else { "would be " };
    for epoch in &repaired.epochs {
        println!("{}: {} uplinks {would}saved, {} are gone", epoch.name, epoch.saved, epoch.gone);
        if let Some(aside) = &epoch.set_aside {
            println!("  the damaged one {would}set aside: {aside}");
        }
    }
    for file in &repaired.before.files {
        println!("{}: {would}made anew", file.file);
    }
    let words = match () {
        () if repaired.before.sound => "There is nothing to repair.",
        () if !repaired.done => "Nothing was changed.",
        () if repaired.is_sound() => "The spool is sound now. What is gone is told after the next start.",
        () => "The spool is still DAMAGED, as spool verify shows: the disk gets worse. Do it again.",
    };
    println!("{words}");
}
