//! How far a copy is, on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::visible::one_line;
use crate::watch::Watch;

/// A line on standard error that goes when the copy is over. Without a terminal there is none.
pub struct Progress(ProgressBar);

const WITH_SIZE: &str = "{msg} {percent:>3}% {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const WITHOUT_SIZE: &str = "{msg} {spinner} {bytes} {bytes_per_sec}";

impl Progress {
    /// The line of a copy of something of that name.
    pub fn new(name: &str, quiet: bool, watch: &Watch) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let progress = Self::on(target, name);
        let bar = progress.0.clone();
        watch.at_end(move || bar.finish_and_clear());
        progress
    }

    fn on(target: ProgressDrawTarget, name: &str) -> Self {
        /// More of a name leaves too little of the line.
        const MOST: usize = 30;
        let name = one_line(name);
        let name = match name.char_indices().nth(MOST) {
            Some((end, _)) => format!("{}…", &name[..end]),
            None => name,
        };
        let bar = ProgressBar::with_draw_target(None, target).with_style(style(WITHOUT_SIZE)).with_message(name);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// The size is known now.
    pub fn size(&self, size: u64) {
        self.0.set_style(style(WITH_SIZE));
        self.0.set_length(size);
    }

    /// So many bytes are copied.
    pub fn copied(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
