//! Passwords in files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Longest password file, in bytes.
const PASSWORD_BYTES_MAX: u64 = 4 << 10;

/// The password in a file, without the white space around it. An error never quotes it.
///
/// # Errors
/// In words, without the name of the file.
pub fn read_password(file: &Path) -> Result<String, String> {
    if !std::fs::metadata(file).map_err(|error| error.to_string())?.is_file() {
        return Err("not a file".to_owned());
    }
    let mut text = String::new();
    let opened = File::open(file).map_err(|error| error.to_string())?;
    let read = opened.take(PASSWORD_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    if text.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(format!("longer than {PASSWORD_BYTES_MAX} bytes"));
    }
    match text.trim() {
        "" => Err("there is no password in it".to_owned()),
        password => Ok(password.to_owned()),
    }
}
