//! `weir-gateway hash-password`.

use std::io::{IsTerminal, Read, Write};

use anyhow::{Context, Result, ensure};

use crate::mqtt::passwords;

/// The longest password read; longer ones are no passwords.
const PASSWORD_BYTES_MAX: u64 = 1024;

pub(super) fn hash(name: Option<&str>) -> Result<()> {
    if let Some(name) = name {
        ensure!(
            !name.is_empty() && !name.contains([':', '\n', '\r']) && !name.starts_with('#'),
            "a name is not empty, does not begin with `#`, and holds no `:` and no end of line"
        );
    }
    if std::io::stdin().is_terminal() {
        eprint!("password (it will be seen; end with Ctrl-D): ");
        std::io::stderr().flush().context("cannot write to the terminal")?;
    }
    let mut text = Vec::new();
    std::io::stdin()
        .take(PASSWORD_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .context("cannot read the password from standard input")?;
    ensure!(text.len() as u64 <= PASSWORD_BYTES_MAX, "a password has at most {PASSWORD_BYTES_MAX} bytes");
    let text = String::from_utf8(text).context("the password is not UTF-8")?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    ensure!(!password.is_empty(), "the password is empty");
    let hash = passwords::hash(password);
    match name {
        Some(name) => println!("{name}:{hash}"),
        None => println!("{hash}"),
    }
    Ok(())
}
