//! Panics in the work on one of many pictures.
//!
//! A panic is a mistake in this program. It must not cost the pictures that come after: their work goes on,
//! and the picture's record says what happened.

use std::{
    any::Any,
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What a panic said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("internal error: {message}{}; please report it", place.as_ref().map(|p| format!(" ({p})")).unwrap_or_default())]
pub struct Panic {
    message: String,
    /// File and line.
    place: Option<String>,
}

thread_local! {
    /// Whether this thread is within [`caught`].
    static IS_CATCHING: Cell<bool> = const { Cell::new(false) };
    /// Where its last panic was.
    static OWN_PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// Threads that are within [`caught`].
static N_CATCHING: AtomicUsize = AtomicUsize::new(0);
/// Where the last panic on one of rayon's threads was.
static RAYONS_PLACE: Mutex<Option<String>> = Mutex::new(None);

/// Does `work`. A panic in it, also on rayon's threads, prints nothing and becomes an error. What `work`
/// was changing may be half changed then: the caller drops it.
///
/// # Errors
/// If `work` panics.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    be_silent_while_catching();
    let within = Within::enter();
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    drop(within);
    done.map_err(|payload| Panic {
        message: message_of(&*payload),
        place: OWN_PLACE.take().or_else(|| rayons_place().take()),
    })
}

/// Marks a thread as catching.
struct Within {
    was_catching: bool,
}

impl Within {
    fn enter() -> Self {
        N_CATCHING.fetch_add(1, Ordering::SeqCst);
        Self {
            was_catching: IS_CATCHING.replace(true),
        }
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        IS_CATCHING.set(self.was_catching);
        N_CATCHING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Puts a hook before the earlier one, which goes on printing the panics that nobody catches here.
fn be_silent_while_catching() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let earlier = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = || {
                info.location()
                    .map(|at| format!("{}:{}", at.file(), at.line()))
            };
            let is_any_catching = N_CATCHING.load(Ordering::SeqCst) > 0;
            if IS_CATCHING.get() {
                OWN_PLACE.set(place());
            } else if is_any_catching && rayon::current_thread_index().is_some() {
                // rayon hands a panic on to the thread that waits for the work.
                *rayons_place() = place();
            } else {
                earlier(info);
            }
        }));
    });
}

fn rayons_place() -> MutexGuard<'static, Option<String>> {
    RAYONS_PLACE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "a panic without words".to_owned());
    text.lines().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_words_and_its_place() {
        assert_eq!(caught(|| 7), Ok(7));
        let error = caught(|| panic!("row {} of\n{}", 3, 2))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("internal error: row 3 of 2 (src/panics.rs:"),
            "{error}"
        );
        let missing = caught(|| "x".parse::<u32>().expect("a number"));
        assert!(missing.unwrap_err().to_string().contains("a number"));
        let wordless = caught(|| panic::panic_any(7)).unwrap_err().to_string();
        assert!(wordless.contains("without words"), "{wordless}");
        assert_eq!(caught(|| 8), Ok(8));
    }

    #[test]
    fn a_panic_on_another_thread_of_the_same_work_is_caught() {
        let work = || {
            (0..100)
                .into_par_iter()
                .for_each(|i| assert!(i != 50, "picture row {i}"));
        };
        let error = caught(work).unwrap_err().to_string();
        assert!(error.contains("picture row 50"), "{error}");
        assert_eq!((0..100).into_par_iter().sum::<i32>(), 4950);
    }

    #[test]
    fn one_within_another_ends_only_itself() {
        let inner = caught(|| caught(|| panic!("inner")).is_err());
        assert_eq!(inner, Ok(true));
        assert!(!IS_CATCHING.get());
    }
}
