//! NATS credentials as `nsc` makes them: an operator vouches for an account, the account for a user.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::clock;

/// What a nats-server is configured with, and what a client shows.
pub struct Credentials {
    /// Lines for the server's configuration file.
    pub server: String,
    /// The client's `.creds` file.
    pub file: PathBuf,
}

/// Makes an operator, an account with JetStream, and one user's file in `folder`.
pub fn make(folder: &Path) -> Result<Credentials> {
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let operator_jwt = sign(&operator, &operator, "operator", &json!({"type": "operator", "version": 2}))?;
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1
    });
    let account_jwt =
        sign(&operator, &account, "weir", &json!({"type": "account", "version": 2, "limits": limits}))?;
    // JetStream's own subscriptions belong to this one.
    let system = KeyPair::new_account();
    let system_jwt = sign(&operator, &system, "system", &json!({"type": "account", "version": 2}))?;
    let rights =
        json!({"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
    let user_jwt = sign(&account, &user, "gateway", &rights)?;
    let seed = user.seed().map_err(|error| anyhow!("{error}"))?;
    let file = folder.join("user.creds");
    std::fs::write(
        &file,
        format!(
            "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        ),
    )?;
    let server = format!(
        "operator: {operator_jwt}\nsystem_account: {system}\nresolver: MEMORY\n\
         resolver_preload: {{ {account}: {account_jwt}, {system}: {system_jwt} }}\n",
        account = account.public_key(),
        system = system.public_key(),
    );
    Ok(Credentials { server, file })
}

/// A JWT in which `issuer` vouches for `subject`.
fn sign(issuer: &KeyPair, subject: &KeyPair, name: &str, rights: &Value) -> Result<String> {
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let claims = json!({
        "jti": format!("{:032x}", fastrand::u128(..)), "iat": clock::now_ms() / 1000,
        "iss": issuer.public_key(), "sub": subject.public_key(), "name": name, "nats": rights
    });
    let signed = [header, claims].map(|part| BASE64URL_NOPAD.encode(part.to_string().as_bytes())).join(".");
    let signature = issuer.sign(signed.as_bytes()).map_err(|error| anyhow!("{error}"))?;
    Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
}
