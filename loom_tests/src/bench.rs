//! Exploring a model.

use spandrel::base::seed::{self, Seed};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::Write;
use std::panic;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Once};
use std::time::Instant;

/// One thread of a model, by name; threads of one name run the same body.
pub type Role<S, V> = (&'static str, fn(&S) -> V);

/// A few threads on one state, and what may come of it.
pub struct Model<S: 'static, V: 'static, O: 'static> {
    /// As it is called in the report.
    pub name: &'static str,
    /// Builds the state, on main, before any thread is spawned.
    pub setup: fn() -> S,
    /// The threads under loom, in every order of spawning.
    pub threads: &'static [Role<S, V>],
    /// The threads under shuttle: the same roles, more of them.
    pub crowd: &'static [Role<S, V>],
    /// On main, after all joined: asserts what must hold, and names what happened. The answers are
    /// in the order of the roles.
    pub outcome: fn(&S, &[V]) -> O,
    /// Exactly what loom must have seen, over all interleavings and orders.
    pub expected: &'static [O],
    /// Loom's bound on preemptions; `None` is all interleavings.
    pub bound: Option<usize>,
    /// The bound when `SPANDREL_LOOM=long`.
    pub long: Option<usize>,
    /// How many schedules shuttle tries, half of them at random and half by PCT.
    pub schedules: usize,
}

/// What one exploration saw.
struct Seen<O> {
    outcomes: BTreeSet<O>,
    iterations: u64,
    orders: usize,
}

impl<S, V, O> Model<S, V, O>
where
    S: Send + Sync + 'static,
    V: Send + 'static,
    O: Ord + Debug + Clone + Send + Sync + 'static,
{
    /// The model holds in every interleaving, and the interleavings that matter were among them.
    pub fn holds(&'static self) {
        seed::sow(None);
        let start = Instant::now();
        let seen = self.explore();
        report(&format!(
            "{:28} green  {:>8} iterations in {:6.2} s, {} spawn orders, {}: {:?}",
            self.name,
            seen.iterations,
            start.elapsed().as_secs_f64(),
            seen.orders,
            self.effort(),
            seen.outcomes,
        ));
        let expected: BTreeSet<O> = self.expected.iter().cloned().collect();
        if cfg!(spandrel_loom) {
            assert_eq!(seen.outcomes, expected, "{}: other outcomes than expected", self.name);
        } else {
            assert!(
                seen.outcomes.len() >= expected.len().min(2),
                "{}: all schedules came out alike: {:?}",
                self.name,
                seen.outcomes
            );
        }
    }

    /// With this bug sown some interleaving breaks, and says one of `why`. Called through
    /// [`red!`](crate::red), in the test `test`.
    ///
    /// The exploration runs in a child process that ends at its first panic: a checker's half-run
    /// threads cannot be unwound.
    pub fn goes_red(&'static self, test: &str, bug: Seed, why: &[&str]) {
        if std::env::var_os(CHILD).is_some() {
            seed::sow(Some(bug));
            self.explore();
            // Not the test's own verdict, which may be that it must panic.
            std::process::exit(0);
        }
        let start = Instant::now();
        let child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr).into_owned();
        // What is corrupt enough may end without a word.
        let ended = child.status.to_string();
        let line = said.lines().find(|line| line.starts_with(FELL)).unwrap_or(&ended);
        report(&format!(
            "{:28} red    with {bug:?} after {:.2} s: {}",
            self.name,
            start.elapsed().as_secs_f64(),
            line.trim_start_matches(FELL),
        ));
        assert!(!child.status.success(), "{}: no interleaving shows {bug:?}", self.name);
        assert!(
            why.iter().any(|why| line.contains(why)),
            "{}: {bug:?} broke something else than expected: {said}",
            self.name
        );
    }

    #[cfg(spandrel_loom)]
    fn effort(&self) -> String {
        match self.preemptions() {
            Some(bound) => format!("at most {bound} preemptions"),
            None => "unbounded".into(),
        }
    }

    #[cfg(spandrel_loom)]
    fn preemptions(&self) -> Option<usize> {
        if std::env::var_os("SPANDREL_LOOM").is_some_and(|v| v == "long") {
            self.long
        } else {
            self.bound
        }
    }

    #[cfg(spandrel_loom)]
    fn explore(&'static self) -> Seen<O> {
        let _inside = Inside::enter();
        let outcomes = Arc::new(Mutex::new(BTreeSet::new()));
        let iterations = Arc::new(AtomicU64::new(0));
        let orders = orders(self.threads);
        for order in &orders {
            let mut builder = loom::model::Builder::new();
            builder.max_threads = self.threads.len() + 1;
            builder.max_branches = 20_000;
            builder.preemption_bound = self.preemptions();
            builder.max_permutations = None;
            builder.max_duration = None;
            builder.checkpoint_file = None;
            builder.location = false;
            builder.log = false;
            let (order, outcomes, iterations) =
                (order.clone(), outcomes.clone(), iterations.clone());
            builder.check(move || {
                iterations.fetch_add(1, Relaxed);
                let state = Arc::new((self.setup)());
                let running: Vec<_> = order
                    .iter()
                    .map(|&role| {
                        let (state, body) = (state.clone(), self.threads[role].1);
                        (role, loom::thread::spawn(move || body(&state)))
                    })
                    .collect();
                let mut answers: Vec<_> =
                    running.into_iter().map(|(role, t)| (role, t.join().unwrap())).collect();
                answers.sort_by_key(|(role, _)| *role);
                let answers: Vec<V> = answers.into_iter().map(|(_, answer)| answer).collect();
                let outcome = (self.outcome)(&state, &answers);
                outcomes.lock().unwrap().insert(outcome);
            });
        }
        let outcomes = std::mem::take(&mut *outcomes.lock().unwrap());
        Seen { outcomes, iterations: iterations.load(Relaxed), orders: orders.len() }
    }

    #[cfg(spandrel_shuttle)]
    fn effort(&self) -> String {
        format!("{} threads", self.crowd.len())
    }

    #[cfg(spandrel_shuttle)]
    fn explore(&'static self) -> Seen<O> {
        use shuttle::scheduler::{PctScheduler, RandomScheduler};
        let _inside = Inside::enter();
        let outcomes = Arc::new(Mutex::new(BTreeSet::new()));
        let iterations = Arc::new(AtomicU64::new(0));
        let run = {
            let (outcomes, iterations) = (outcomes.clone(), iterations.clone());
            move || {
                iterations.fetch_add(1, Relaxed);
                let state = Arc::new((self.setup)());
                let running: Vec<_> = self
                    .crowd
                    .iter()
                    .map(|&(_, body)| {
                        let state = state.clone();
                        shuttle::thread::spawn(move || body(&state))
                    })
                    .collect();
                let answers: Vec<V> = running.into_iter().map(|t| t.join().unwrap()).collect();
                let outcome = (self.outcome)(&state, &answers);
                outcomes.lock().unwrap().insert(outcome);
            }
        };
        let config = || {
            let mut config = shuttle::Config::new();
            config.failure_persistence = shuttle::FailurePersistence::None;
            config.silence_warnings = true;
            config
        };
        let half = self.schedules / 2;
        // Fixed seeds: the same run every time.
        let random = RandomScheduler::new_from_seed(0x5eed, half);
        shuttle::Runner::new(random, config()).run(run.clone());
        let pct = PctScheduler::new_from_seed(0x5eed, 3, half);
        shuttle::Runner::new(pct, config()).run(run);
        let outcomes = std::mem::take(&mut *outcomes.lock().unwrap());
        Seen { outcomes, iterations: iterations.load(Relaxed), orders: 1 }
    }
}

/// All orders in which the roles may be spawned; two threads of one name are not told apart.
#[cfg(spandrel_loom)]
fn orders<S, V>(roles: &[Role<S, V>]) -> Vec<Vec<usize>> {
    fn extend(left: &mut Vec<usize>, order: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
        if left.is_empty() {
            all.push(order.clone());
        }
        for at in 0..left.len() {
            order.push(left.remove(at));
            extend(left, order, all);
            left.insert(at, order.pop().unwrap());
        }
    }
    let mut all = Vec::new();
    extend(&mut (0..roles.len()).collect(), &mut Vec::new(), &mut all);
    let mut known = BTreeSet::new();
    all.retain(|order| known.insert(order.iter().map(|&role| roles[role].0).collect::<Vec<_>>()));
    all
}

/// Set in the environment of a child that explores a seeded bug.
const CHILD: &str = "SPANDREL_LOOM_CHILD";
/// Begins the line that says what broke.
const FELL: &str = "model fell at ";

std::thread_local! {
    /// Whether this thread is inside a checker.
    static EXPLORING: Cell<bool> = const { Cell::new(false) };
}

/// For as long as it lives this thread is inside a checker.
struct Inside;

impl Inside {
    fn enter() -> Self {
        hook();
        EXPLORING.set(true);
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        EXPLORING.set(false);
    }
}

/// A model that breaks ends the process: its threads are coroutines stopped half way, and unwinding
/// through them does not end well.
fn hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !EXPLORING.get() {
                return default(info);
            }
            let said = info.payload_as_str().unwrap_or("a place that has no words");
            let at = info.location().map(ToString::to_string).unwrap_or_default();
            report(&format!("{FELL}{at}: {}", said.replace('\n', " ")));
            std::process::exit(101);
        }));
    });
}

/// A line past libtest's capture, so that the cost of every model is seen in every run.
fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A test that a model goes red: its name, the model, the bug, and what may be said then.
#[macro_export]
macro_rules! red {
    ($test:ident: $model:ident, $bug:ident, $($why:literal)|+) => {
        #[test]
        fn $test() {
            let bug = ::spandrel::base::seed::Seed::$bug;
            $model.goes_red(stringify!($test), bug, &[$($why),+]);
        }
    };
}
