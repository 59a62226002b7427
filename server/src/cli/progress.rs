//! Bars for long work, on standard error, where somebody sees them.

use indicatif::{ProgressBar, ProgressStyle};

use super::output;

/// A bar, or nothing where nobody looks.
pub(super) struct Progress(ProgressBar);

/// A job's work in thousandths.
const WHOLE: u64 = 1_000;

impl Progress {
    /// Over a file's bytes.
    pub(super) fn over(size_bytes: Option<u64>) -> Self {
        Self(match size_bytes {
            _ if !output::progress_is_seen() => ProgressBar::hidden(),
            Some(size_bytes) => ProgressBar::new(size_bytes)
                .with_style(style("{bar:40} {percent:>3}%  {bytes}/{total_bytes}  {eta} left")),
            None => ProgressBar::new_spinner(),
        })
    }

    /// Over a job of the server.
    pub(super) fn of_job() -> Self {
        Self(match output::progress_is_seen() {
            false => ProgressBar::hidden(),
            true => ProgressBar::new(WHOLE).with_style(style("{bar:40} {percent:>3}%  {msg}  {eta} left")),
        })
    }

    pub(super) fn at(&self, bytes: u64) {
        // Lines that are sent again lie behind.
        if bytes > self.0.position() {
            self.0.set_position(bytes);
        }
    }

    /// `part` of the whole, from 0 to 1.
    pub(super) fn at_part(&self, part: f64, message: String) {
        self.0.set_position((part.clamp(0.0, 1.0) * WHOLE as f64) as u64);
        self.0.set_message(message);
    }

    pub(super) fn note(&self, text: &str) {
        self.0.suspend(|| output::note(text));
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a constant template")
}
