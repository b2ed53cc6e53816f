//! Folders that are still there after the power was cut: a name is durable when the folder it is in has been synced.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Makes a folder and those above it that are missing. All of them are durable when this returns, as far as they are
/// this process's: those that were there before are synced too, because whoever made them may not have lived to do it.
///
/// # Errors
/// The operating system's, with the folder it is about.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        // Whoever may not read a folder above has not made it, nor what is in it.
        if path.file_name().is_some() && sync_folder(parent).is_ok() {
            return create_folder(parent);
        }
        return Ok(());
    }
    create_folder(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(about(path, &error)),
        _ => sync_folder(parent),
    }
}

/// Makes the names in a folder durable.
///
/// # Errors
/// The operating system's, with the folder.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| about(path, &error))
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
