//! Writes `lines` lines of `bytes` bytes each (10 of 20 when not given) to standard output and to standard error, the
//! last one without a line end. With `text`, each line is that text.

use std::io::{self, Write as _};
use wharf_test_guests::{Error, Request, Response, number, parameter, service, text};

service!(handle);

fn handle(request: Request) -> Result<Response, Error> {
    let lines = number(&request, "lines").unwrap_or(10);
    let bytes = number(&request, "bytes").unwrap_or(20) as usize;
    for index in 1..=lines {
        let mut line = match parameter(&request, "text") {
            Some(text) => text.to_owned(),
            None => format!("{:x<bytes$}", format!("line {index} ")),
        };
        if index < lines {
            line.push('\n');
        }
        // What becomes of the output is the host's affair: a guest goes on when it is not taken.
        let _ = io::stdout().write_all(line.as_bytes());
        let _ = io::stderr().write_all(line.as_bytes());
    }
    let _ = io::stdout().flush();
    Ok(text("written\n"))
}
