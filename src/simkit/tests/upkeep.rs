//! What is done to a journal beside appending: a purge, a change of keys, keeping damaged places aside.

#[path = "upkeep/mod.rs"]
mod upkeep;

use std::cell::Cell;

#[test]
fn a_power_cut_at_any_call_of_a_purge_leaves_all_of_it_or_none_and_the_order_is_never_forgotten() {
    let states = Cell::new(0);
    upkeep::purge::at_every_call(&states);
    println!("{} states", states.get());
}

#[test]
fn a_power_cut_during_a_rotation_loses_nothing_and_the_old_key_is_needed_until_no_segment_does() {
    let states = Cell::new(0);
    upkeep::rotation::at_every_call(&states);
    println!("{} states", states.get());
}

#[test]
fn a_power_cut_while_damage_is_kept_aside_and_mended_leaves_whole_copies_and_what_was_told() {
    let states = Cell::new(0);
    upkeep::quarantine::at_every_call(&states);
    println!("{} states", states.get());
}

#[test]
fn what_the_real_disk_synced_survives_that_its_power_goes() {
    let cuts = Cell::new(0);
    match upkeep::real_disk::power_cut(&cuts) {
        true => println!("{} cuts", cuts.get()),
        false => println!("skipped: a file system of its own needs root, mkfs.ext4, perl and a loop device"),
    }
}
