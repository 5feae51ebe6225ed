//! Commands of this program as somebody can paste them into a shell: its full path, and every word quoted if need be.

/// This program with arguments.
pub(crate) fn command(args: &[&str]) -> String {
    // Without /proc nobody knows where it lies; then it is hopefully in the PATH.
    let program = std::env::current_exe().map_or_else(|_| "shorefast".to_owned(), |p| p.display().to_string());
    let words: Vec<String> = [program.as_str()].iter().chain(args).map(|word| quoted(word)).collect();
    words.join(" ")
}

/// A word that a POSIX shell reads as this one.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/.-_=:,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::process::Command;

    use super::*;

    /// A line as a shell takes it apart.
    pub(crate) fn words(line: &str) -> Vec<String> {
        let shell = Command::new("sh").args(["-c", &format!(r"printf '%s\n' {line}")]).output().expect("sh runs");
        String::from_utf8(shell.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_shell_reads_quoted_words_as_they_were() {
        let strange = ["plain", "two words", "it's", "$HOME `id` \\", "*", "a;b"];
        let line: Vec<String> = strange.iter().map(|word| quoted(word)).collect();
        assert_eq!(words(&line.join(" ")), strange);
    }
}
