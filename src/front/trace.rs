//! The option `trace`: every call is recorded ([`watch::trace`](crate::watch::trace)) from the first slow
//! path on, which is the first allocation.

use crate::base::line::Line;
use crate::watch::{mode, trace};

/// Run by the loader after `main` has returned or `exit` was called.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = at_exit;

/// The environment names a file.
pub(super) fn start(path: &[u8]) {
    if trace::begin(path) {
        return mode::on(mode::TRACE);
    }
    let mut line = Line::new();
    line.push(b"spandrel: SPANDREL: no trace is recorded: cannot make or map ");
    line.push_quoted(path);
    line.say();
}

/// What is recorded is in the file already; what was mapped late is not.
extern "C" fn at_exit() {
    trace::end();
}
