//! Teams: threads that run the same function and synchronize at barriers.

use std::{
    cell::{Cell, UnsafeCell},
    ffi::{c_long, c_void},
    ptr::null,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU32,
            Ordering::{AcqRel, Relaxed},
        },
    },
    thread,
};

use crossbeam_utils::CachePadded;

use super::{contention, wait::Counter};

/// The function that a team runs.
pub type Function = unsafe extern "C" fn(*mut c_void);

/// The state that the members of a team share.
#[derive(Default)]
pub struct Team {
    /// Number of members.
    size: AtomicU32,
    /// Members that have arrived at the present barrier.
    arrived: AtomicU32,
    /// Number of barriers that all members have passed. Waiting members poll it, so it has a cache line of its own.
    passed: CachePadded<Counter>,
    /// How often members other than the first have returned from a function.
    returned: CachePadded<Counter>,
    /// Number of `single` regions that a member has taken.
    singles: AtomicU32,
    loops: Mutex<Loop>,
}

/// A loop whose iterations the members share.
#[derive(Default)]
struct Loop {
    /// Number of loops that have started.
    n_started: u32,
    iterations: Iterations,
}

/// The remaining iterations of a loop, and how many a member takes at a time.
#[derive(Clone, Copy, Default)]
pub struct Iterations {
    pub next: c_long,
    pub end: c_long,
    pub step: c_long,
    pub chunk: c_long,
}

impl Iterations {
    /// Takes the next iterations: the first, and the end of the chunk.
    fn take(&mut self) -> Option<(c_long, c_long)> {
        let left = self.end - self.next;
        if left * self.step.signum() <= 0 {
            return None;
        }
        let taken = self.chunk.max(1) * self.step;
        let first = self.next;
        self.next = if taken.abs() < left.abs() {
            first + taken
        } else {
            self.end
        };
        Some((first, self.next))
    }
}

/// A thread's membership in a team.
#[derive(Clone, Copy)]
struct Member {
    /// Null outside of a team.
    team: *const Team,
    index: u32,
    /// Number of `single` regions and of loops that it has reached.
    singles: u32,
    loops: u32,
}

impl Member {
    const NONE: Self = Self {
        team: null(),
        index: 0,
        singles: 0,
        loops: 0,
    };
}

thread_local! {
    static MEMBER: Cell<Member> = const { Cell::new(Member::NONE) };
}

/// This thread's team and membership; `None` outside of a team.
fn current() -> Option<(&'static Team, Member)> {
    let member = MEMBER.get();
    // SAFETY: a thread has a team only while it runs the team's function, and `run` keeps the team alive until all
    // members have returned from it.
    let team = unsafe { member.team.as_ref() }?;
    Some((team, member))
}

/// This thread's index in its team, from 0.
pub fn index() -> usize {
    MEMBER.get().index as usize
}

/// The size of this thread's team.
pub fn size() -> usize {
    current().map_or(1, |(team, _)| team.size.load(Relaxed) as usize)
}

/// Waits until all members of the team have arrived.
pub fn barrier() {
    if let Some((team, _)) = current() {
        team.barrier();
    }
}

/// Whether this thread runs the next `single` region, which one member of the team runs.
pub fn takes_single() -> bool {
    let Some((team, mut member)) = current() else {
        return true;
    };
    let ordinal = member.singles;
    member.singles += 1;
    MEMBER.set(member);
    let taken = team
        .singles
        .compare_exchange(ordinal, member.singles, Relaxed, Relaxed);
    taken.is_ok()
}

/// Enters a loop of these iterations and takes the first remaining ones.
///
/// No member enters the next loop before all have arrived at the barrier at the end of this one.
pub fn begin_loop(iterations: Iterations) -> Option<(c_long, c_long)> {
    let (team, mut member) = current()?;
    let ordinal = member.loops;
    member.loops += 1;
    MEMBER.set(member);
    let mut shared = team.loops.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.n_started == ordinal {
        *shared = Loop {
            n_started: member.loops,
            iterations,
        };
    }
    shared.iterations.take()
}

/// Takes more iterations of the loop.
pub fn continue_loop() -> Option<(c_long, c_long)> {
    let (team, _) = current()?;
    let mut shared = team.loops.lock().unwrap_or_else(PoisonError::into_inner);
    shared.iterations.take()
}

impl Team {
    fn barrier(&self) {
        let size = self.size.load(Relaxed);
        let passed = self.passed.get();
        // The last member resets the count before it releases the others, who may reach the next barrier at once.
        if self.arrived.fetch_add(1, AcqRel) + 1 == size {
            self.arrived.store(0, Relaxed);
            self.passed.add(1);
        } else {
            let waited = self.passed.wait_until(|now| now != passed);
            contention::record_wait(waited / (size - 1)); // all waiting members report the same wait
        }
    }

    /// Resets the team to `size` members at the start of their function.
    fn reset(&self, size: usize) {
        self.size.store(size as u32, Relaxed);
        self.singles.store(0, Relaxed);
        self.loops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .n_started = 0;
    }

    /// Runs the function on this thread as member `index`.
    ///
    /// # Safety
    /// As [`run`]; in addition, member `index` is not running on another thread.
    unsafe fn run_as(&self, index: u32, function: Function, data: *mut c_void) {
        MEMBER.set(Member {
            team: self,
            index,
            ..Member::NONE
        });
        // SAFETY: the caller guarantees it.
        unsafe { function(data) };
        MEMBER.set(Member::NONE);
    }
}

/// Worker threads, and the team that they form with the thread that calls [`run`].
struct Pool {
    team: Arc<Team>,
    workers: Vec<Arc<Mailbox>>,
}

/// The next job of a worker.
#[derive(Default)]
struct Mailbox {
    /// Number of jobs posted.
    posted: Counter,
    job: UnsafeCell<Option<(Function, Data)>>,
}

/// The function's argument.
#[derive(Clone, Copy)]
struct Data(*mut c_void);

// SAFETY: the job is written while the worker waits, and read after `posted` has changed. The caller of `run`
// guarantees that its argument may be used from several threads.
unsafe impl Sync for Mailbox {}
// SAFETY: as above.
unsafe impl Send for Mailbox {}

/// Idle pools: together with those in use, as many as graphs were ever computed at the same time.
static IDLE: Mutex<Vec<Pool>> = Mutex::new(Vec::new());

/// Runs a function on `n` threads, including this one, and returns when all have returned from it. Uses fewer threads
/// if the system cannot create more, and only this one if it is in a team already.
///
/// # Safety
/// The function may be called with this argument on several threads at once.
pub unsafe fn run(n: usize, function: Function, data: *mut c_void) {
    if n <= 1 || current().is_some() {
        let outer = MEMBER.replace(Member::NONE);
        // SAFETY: the caller guarantees it.
        unsafe { function(data) };
        MEMBER.set(outer);
        return;
    }
    let idle = || IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let pool = idle().pop();
    let mut pool = pool.unwrap_or_else(Pool::new);
    // SAFETY: the caller guarantees it.
    unsafe { pool.run(n, function, data) };
    idle().push(pool);
}

impl Pool {
    fn new() -> Self {
        Self {
            team: Arc::new(Team::default()),
            workers: Vec::new(),
        }
    }

    /// # Safety
    /// As [`run`].
    unsafe fn run(&mut self, n: usize, function: Function, data: *mut c_void) {
        while self.workers.len() + 1 < n && self.spawn_worker() {}
        let workers = &self.workers[..self.workers.len().min(n - 1)];
        self.team.reset(workers.len() + 1);
        let returned = self.team.returned.get();
        for mailbox in workers {
            // SAFETY: the worker has returned from its last job and waits for the next.
            unsafe { *mailbox.job.get() = Some((function, Data(data))) };
            mailbox.posted.add(1);
        }
        // SAFETY: the caller guarantees it.
        unsafe { self.team.run_as(0, function, data) };
        let all = returned.wrapping_add(workers.len() as u32);
        self.team.returned.wait_until(|now| now == all);
    }

    /// Starts one more worker; false if the system cannot.
    fn spawn_worker(&mut self) -> bool {
        let mailbox = Arc::new(Mailbox::default());
        let (team, its_mailbox) = (Arc::clone(&self.team), Arc::clone(&mailbox));
        let index = self.workers.len() as u32 + 1;
        let thread = thread::Builder::new().name(format!("xc2-decoder-{index}"));
        let started = thread
            .spawn(move || run_worker(&team, &its_mailbox, index))
            .is_ok();
        if started {
            self.workers.push(mailbox);
        }
        started
    }
}

/// The loop of a worker, which ends with the process.
fn run_worker(team: &Team, mailbox: &Mailbox, index: u32) {
    let mut n_done = 0_u32;
    loop {
        mailbox.posted.idle_until(|posted| posted != n_done);
        n_done = n_done.wrapping_add(1);
        // SAFETY: the job is not written again before this thread has returned from it.
        if let Some((function, data)) = unsafe { *mailbox.job.get() } {
            // SAFETY: the caller of `run` guarantees it.
            unsafe { team.run_as(index, function, data.0) };
        }
        team.returned.add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Runs a closure on a team.
    fn on_team<F: Fn() + Sync>(n: usize, work: F) {
        unsafe extern "C" fn call<F: Fn()>(work: *mut c_void) {
            // SAFETY: the closure below, which lives until `run` returns.
            unsafe { (*work.cast_const().cast::<F>())() }
        }
        // SAFETY: the closure may be called on several threads.
        unsafe { run(n, call::<F>, (&raw const work).cast_mut().cast()) }
    }

    #[test]
    fn every_member_runs_once_with_its_index() {
        for n in [1, 2, 3, 8, 3, 1] {
            let runs: Vec<_> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            on_team(n, || {
                assert_eq!(size(), n);
                runs[index()].fetch_add(1, Relaxed);
            });
            assert!(runs.iter().all(|r| r.load(Relaxed) == 1), "{n} threads");
            assert_eq!((size(), index()), (1, 0), "outside of a team");
        }
    }

    #[test]
    fn no_member_passes_a_barrier_before_all_have_arrived() {
        let arrived = AtomicUsize::new(0);
        on_team(4, || {
            for round in 1..=500 {
                if round % 100 == index() {
                    thread::sleep(std::time::Duration::from_millis(1)); // longer than the others spin
                }
                arrived.fetch_add(1, Relaxed);
                barrier();
                assert!(arrived.load(Relaxed) >= 4 * round);
                barrier();
            }
        });
    }

    #[test]
    fn exactly_one_member_takes_each_single_region() {
        let taken = AtomicUsize::new(0);
        for _ in 0..20 {
            on_team(3, || {
                for _ in 0..10 {
                    if takes_single() {
                        taken.fetch_add(1, Relaxed);
                    }
                }
            });
        }
        assert_eq!(taken.load(Relaxed), 200);
        assert!(takes_single(), "outside of a team");
    }

    #[test]
    fn the_members_share_the_iterations_of_a_loop() {
        for (next, end, step) in [(0, 1000, 1), (5, 6, 1), (0, 0, 1), (10, 0, -1), (0, 10, 3)] {
            let done: Vec<_> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
            on_team(3, || {
                for _ in 0..2 {
                    let mut taken = begin_loop(Iterations {
                        next,
                        end,
                        step,
                        chunk: 7,
                    });
                    while let Some((first, end_of_chunk)) = taken {
                        let mut i = first;
                        while (end_of_chunk - i) * step.signum() > 0 {
                            done[i as usize].fetch_add(1, Relaxed);
                            i += step;
                        }
                        taken = continue_loop();
                    }
                    barrier();
                }
            });
            for (i, done) in done.iter().enumerate() {
                let i = i as c_long;
                let within = if step > 0 {
                    next..end
                } else {
                    end + 1..next + 1
                };
                let is_one = within.contains(&i) && (i - next) % step == 0;
                assert_eq!(done.load(Relaxed), 2 * usize::from(is_one), "iteration {i}");
            }
        }
    }

    #[test]
    fn a_nested_team_is_one_thread() {
        on_team(2, || {
            let outer = index();
            on_team(2, || assert_eq!((size(), index()), (1, 0)));
            assert_eq!((size(), index()), (2, outer));
        });
    }

    #[test]
    fn teams_can_run_concurrently() {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let members = AtomicUsize::new(0);
                        on_team(3, || {
                            members.fetch_add(1, Relaxed);
                            barrier();
                            assert_eq!(members.load(Relaxed), 3);
                        });
                    }
                });
            }
        });
    }
}
