//! A plain program: answers its standard input in upper case. When the input's first line is `exit N`, it complains on
//! standard error and ends with this exit code.

use std::io::{self, Read as _};
use std::process;

fn main() -> io::Result<()> {
    let mut input = String::new();
    io::stdin().read_to_string(&mut input)?;
    let first = input.lines().next().unwrap_or_default();
    if let Some(code) = first.strip_prefix("exit ").and_then(|code| code.parse().ok()) {
        eprintln!("told to exit with {code}");
        process::exit(code);
    }
    print!("{}", input.to_uppercase());
    Ok(())
}
