//! Configuration: file, environment, flags; refused with every problem, or shown as TOML without the secrets.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use punchline::config::{Config, Sources};

fuzz_target!(|data: (&str, Vec<(&str, &str)>, Vec<(&str, &str)>)| {
    let (text, env, flags) = data;
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    let env = env.into_iter().map(|(key, value)| (format!("PUNCHLINE_{key}"), value.into())).collect();
    let flags = flags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    match Config::load(&Sources { dev: true, file: Some(file.path().into()), env, flags }) {
        Ok(config) => assert!(!config.to_toml().is_empty()),
        Err(refused) => assert!(!refused.problems.is_empty() && !refused.to_string().is_empty()),
    }
});
