//! A world compiled from what is known of the one before it is what it would be by itself, after
//! every one of many steps; and so is the plan that leads to it.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use netpol_engine::compile::{Compiler, compile};
use netpol_engine::plan::plan;
use netpol_engine::tables::Tables;
use proptest::prelude::*;

use support::worlds;

proptest! {
    #[test]
    fn each_world_compiles_to_what_it_would_by_itself(
        mut world in worlds::world(),
        steps in worlds::steps(),
    ) {
        let mut compiler = Compiler::default();
        prop_assert_eq!(compiler.next(&Arc::new(world.clone())).unwrap(), compile(&world).unwrap());
        for step in steps {
            step.clone().take(&mut world);
            let next = compiler.next(&Arc::new(world.clone())).unwrap();
            prop_assert_eq!(next, compile(&world).unwrap(), "after {:?}", step);
        }
    }

    /// Tables that share rows are compared by less than their content.
    #[test]
    fn what_tables_share_makes_no_other_plan(
        mut world in worlds::world(),
        steps in worlds::steps(),
    ) {
        let mut compiler = Compiler::default();
        let [mut shared, mut apart] = [Tables::default(), Tables::default()];
        for (step, generation) in steps.into_iter().zip(0..) {
            step.take(&mut world);
            let desired = [compiler.next(&Arc::new(world.clone())).unwrap().tables, compile(&world).unwrap().tables];
            let plans = [
                plan(&shared, &desired[0], generation),
                plan(&apart, &desired[1], generation),
            ];
            prop_assert_eq!(&plans[0], &plans[1]);
            let [one, two] = desired;
            shared = plans[0].installed(one);
            apart = plans[1].installed(two);
        }
    }
}
