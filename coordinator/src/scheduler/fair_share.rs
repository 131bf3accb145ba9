//! Whose turn it is: start-time fair queueing between users. Pure.
//!
//! Each job that is handed out moves its user on by 1/weight of a turn, and the user who is least far gets the next
//! one. Who had nothing to run saves nothing up: their next turn begins no earlier than the one given last. So a
//! user with one job waits for at most one job of each other user, however many those have.
//!
//! Goyal, Vin, Cheng: "Start-time Fair Queuing", SIGCOMM 1996, with turns given when a job is handed out and not
//! when it is submitted: only then is it known which jobs the asking worker can run at all.

use crate::model::{Given, Turn};

/// One turn of a user of weight 1.
pub const TURN: u64 = 1 << 20;

/// Gives the next turn to one of the users who have a job, or to nobody when there is none. `last_turn` is the one
/// given before.
#[must_use]
pub fn next_turn(users: &[Turn], last_turn: u64) -> Option<Given> {
    let begins = |user: &Turn| user.served.max(last_turn);
    let (index, user) =
        users.iter().enumerate().min_by_key(|(_, user)| (begins(user), user.first))?;
    let turn = begins(user);
    Some(Given { index, served: turn + TURN / u64::from(user.weight.max(1)), turn })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives `turns` turns among users who always have more, and tells who got them.
    fn serve(users: &mut [Turn], last_turn: &mut u64, turns: usize) -> Vec<usize> {
        let mut order = Vec::new();
        for _ in 0..turns {
            let given = next_turn(users, *last_turn).unwrap();
            users[given.index].served = given.served;
            *last_turn = given.turn;
            order.push(given.index);
        }
        order
    }

    fn user(weight: u32, first: i64) -> Turn {
        Turn { served: 0, weight, first }
    }

    #[test]
    fn users_of_one_weight_take_turns_beginning_with_who_came_first() {
        let mut users = [user(1, 7), user(1, 3), user(1, 9)];
        assert_eq!(serve(&mut users, &mut 0, 6), [1, 0, 2, 1, 0, 2]);
    }

    #[test]
    fn a_weight_of_three_is_three_turns_for_one() {
        let mut users = [user(3, 1), user(1, 2)];
        let order = serve(&mut users, &mut 0, 400);
        let first = order.iter().filter(|index| **index == 0).count();
        assert!((299..=301).contains(&first), "{first}");
    }

    #[test]
    fn who_comes_late_is_next_and_saved_nothing_up() {
        let mut last_turn = 0;
        let mut busy = [user(1, 1)];
        serve(&mut busy, &mut last_turn, 50_000);
        let mut users = [busy[0], user(1, 60_000)];

        let order = serve(&mut users, &mut last_turn, 8);

        assert_eq!(order, [1, 0, 1, 0, 1, 0, 1, 0]);
    }

    #[test]
    fn who_could_not_be_served_for_long_does_not_catch_up() {
        // Their jobs asked for a PC that was off while the other was served.
        let mut last_turn = 0;
        let mut other = [user(1, 2)];
        serve(&mut other, &mut last_turn, 1000);
        let mut users = [user(1, 1), other[0]];

        let order = serve(&mut users, &mut last_turn, 10);

        let caught_up = order.iter().filter(|index| **index == 0).count();
        assert!((5..=6).contains(&caught_up), "at most one turn ahead: {order:?}");
    }

    #[test]
    fn the_turn_never_goes_back() {
        let mut last_turn = 0;
        let mut users = [user(5, 1), user(1, 2), user(2, 3)];
        let mut before = 0;
        for _ in 0..100 {
            serve(&mut users, &mut last_turn, 1);
            assert!(last_turn >= before);
            before = last_turn;
        }
    }

    #[test]
    fn nobody_waits_and_nobody_is_served() {
        assert_eq!(next_turn(&[], 5), None);
    }
}
