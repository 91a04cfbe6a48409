//! Catches panics while one of many pictures is processed.
//!
//! A panic is a bug in this program. The other pictures are still processed, and the record of this picture says what
//! happened.

use std::{
    any::Any,
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Message and location of a panic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("internal error: {message}{}; please report it", location.as_ref().map(|p| format!(" ({p})")).unwrap_or_default())]
pub struct Panic {
    message: String,
    /// `FILE:LINE`.
    location: Option<String>,
}

thread_local! {
    /// Whether this thread is inside [`catch`].
    static IS_CATCHING: Cell<bool> = const { Cell::new(false) };
    /// Location of its last panic.
    static LAST_LOCATION: Cell<Option<String>> = const { Cell::new(None) };
}

/// Threads that are inside [`catch`].
static N_CATCHING: AtomicUsize = AtomicUsize::new(0);
/// Location of the last panic on one of rayon's threads.
static RAYON_LOCATION: Mutex<Option<String>> = Mutex::new(None);

/// Runs `work`. A panic in it, also on rayon's threads, prints nothing and becomes an error. Data that `work` was
/// changing may be half changed then: the caller must drop them.
///
/// # Errors
/// If `work` panics.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    install_hook();
    let guard = CatchGuard::enter();
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    drop(guard);
    done.map_err(|payload| Panic {
        message: message_of(&*payload),
        location: LAST_LOCATION.take().or_else(|| rayon_location().take()),
    })
}

/// Marks this thread as catching panics while it lives.
struct CatchGuard {
    was_catching: bool,
}

impl CatchGuard {
    fn enter() -> Self {
        N_CATCHING.fetch_add(1, Ordering::SeqCst);
        Self {
            was_catching: IS_CATCHING.replace(true),
        }
    }
}

impl Drop for CatchGuard {
    fn drop(&mut self) {
        IS_CATCHING.set(self.was_catching);
        N_CATCHING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Installs a panic hook that is silent for panics caught here and calls the previous hook for all others.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let location = || {
                info.location()
                    .map(|at| format!("{}:{}", at.file(), at.line()))
            };
            let is_any_catching = N_CATCHING.load(Ordering::SeqCst) > 0;
            if IS_CATCHING.get() {
                LAST_LOCATION.set(location());
            } else if is_any_catching && rayon::current_thread_index().is_some() {
                // rayon resumes the panic on the thread that waits for the work.
                *rayon_location() = location();
            } else {
                previous(info);
            }
        }));
    });
}

fn rayon_location() -> MutexGuard<'static, Option<String>> {
    RAYON_LOCATION
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "a panic without a message".to_owned());
    text.lines().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_message_and_location() {
        assert_eq!(catch(|| 7), Ok(7));
        let error = catch(|| panic!("row {} of\n{}", 3, 2))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("internal error: row 3 of 2 (src/system/panics.rs:"),
            "{error}"
        );
        let missing = catch(|| "x".parse::<u32>().expect("a number"));
        assert!(missing.unwrap_err().to_string().contains("a number"));
        let no_message = catch(|| panic::panic_any(7)).unwrap_err().to_string();
        assert!(no_message.contains("without a message"), "{no_message}");
        assert_eq!(catch(|| 8), Ok(8));
    }

    #[test]
    fn a_panic_on_a_rayon_thread_is_caught() {
        let work = || {
            (0..100)
                .into_par_iter()
                .for_each(|i| assert!(i != 50, "picture row {i}"));
        };
        let error = catch(work).unwrap_err().to_string();
        assert!(error.contains("picture row 50"), "{error}");
        assert_eq!((0..100).into_par_iter().sum::<i32>(), 4950);
    }

    #[test]
    fn nested_catches_are_independent() {
        let inner = catch(|| catch(|| panic!("inner")).is_err());
        assert_eq!(inner, Ok(true));
        assert!(!IS_CATCHING.get());
    }
}
