//! Clients side by side: a few threads, each with its own state, take one index after another.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Does `work(state, index)` for each index below `count`, on as many threads as there are states (this one is one of
/// them). Stops early at an error, and returns one.
pub fn share<S: Send, E: Send>(
    states: &mut [S],
    count: usize,
    work: impl Fn(&mut S, usize) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let until_done = |state: &mut S| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(());
            }
            work(state, index).inspect_err(|_| next.store(count, Ordering::Relaxed))?;
        }
    };
    let Some((mine, others)) = states.split_first_mut() else { return Ok(()) };
    thread::scope(|scope| {
        let others: Vec<_> = others.iter_mut().map(|state| scope.spawn(|| until_done(state))).collect();
        let mine = until_done(mine);
        others.into_iter().map(|thread| thread.join()).fold(mine, |done, joined| match joined {
            Ok(result) => done.and(result),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn each_index_is_taken_once() {
        let mut states = vec![Vec::new(); 3];
        share(&mut states, 100, |taken, index| {
            taken.push(index);
            Ok::<(), ()>(())
        })
        .unwrap();
        let mut taken = states.concat();
        taken.sort_unstable();
        assert_eq!(taken, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn an_error_ends_the_work_and_is_returned() {
        let fail_at_7 = |_: &mut (), index| if index == 7 { Err(index) } else { Ok(()) };
        assert_eq!(share(&mut [(), ()], usize::MAX - 8, fail_at_7), Err(7));
        assert_eq!(share(&mut [], 10, fail_at_7), Ok(()), "nobody to fail");
    }
}
