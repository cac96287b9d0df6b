//! Writes what batches may refer to on links without history: `src/wire/dictionary/chat.txt`, and beside it `chat.tables`, how
//! often which byte, length and distance occurs in chat that is packed so.
//!
//! It is made of what any mission's chat has (the language's common words, in the forms in which they stand in a sentence) and of
//! the mission of [`crate::corpus`], which shares no call-sign, place, report or phrase with the one that `bench posts` measures.
//! The order counts: what is more likely stands nearer to the end, where zstd's offsets are shorter.

use std::path::Path;
use std::process::Command;

use model::Event;

use crate::Error;
use crate::corpus::Chat;

/// Large enough for the words, small enough that a lone post's offsets into it stay short.
const BYTES_MAX: usize = 8 << 10;

/// The seed of the mission whose posts are in it.
const SEED: u64 = 77;

/// Posts from which the tables are made.
const SAMPLES: usize = 4_000;

/// What ends the tables of a dictionary (RFC 8878, 5): the offsets 1, 4 and 8, from which repeated ones start.
const TABLES_END: [u8; 12] = [1, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0];

/// Writes both files into a directory.
pub(crate) fn write(dir: &Path) -> Result<(), Error> {
    std::fs::write(dir.join("chat.txt"), text())?;
    Ok(std::fs::write(dir.join("chat.tables"), tables()?)?)
}

/// Of a dictionary that `zstd --train` makes of the same mission; its content is left out.
fn tables() -> Result<Vec<u8>, Error> {
    let scratch = tempfile::tempdir()?;
    let (samples, out) = (scratch.path().join("posts"), scratch.path().join("dictionary"));
    std::fs::create_dir(&samples)?;
    let (mut chat, _) = Chat::begin(SEED + 1);
    for n in 0..SAMPLES {
        let Event::Post(post) = chat.post() else { continue };
        std::fs::write(samples.join(format!("{n:05}")), [post.message.as_bytes(), b"\0"].concat())?;
    }
    let train = Command::new("zstd")
        .args(["-q", "--train", "-19", "--maxdict=16384", "-r"])
        .arg(&samples)
        .arg("-o")
        .arg(&out)
        .output()?;
    let trained = std::fs::read(&out).map_err(|_| String::from_utf8_lossy(&train.stderr).into_owned())?;
    let end = trained.windows(TABLES_END.len()).position(|window| window == TABLES_END);
    let end = end.ok_or("zstd made a dictionary of another form")? + TABLES_END.len();
    Ok(trained[..end].to_vec())
}

/// Posts as they stand in a batch, each closed by a NUL; words before them.
fn text() -> Vec<u8> {
    let mut words: Vec<u8> = Vec::new();
    for line in WORDS.lines().rev() {
        words.extend_from_slice(line.as_bytes());
        words.push(0);
    }
    let (mut chat, _) = Chat::begin(SEED);
    let mut posts = Vec::new();
    loop {
        let Event::Post(post) = chat.post() else { continue };
        if words.len() + posts.len() + post.message.len() + 1 > BYTES_MAX {
            break;
        }
        // Reports repeat each other; lines are what most posts are.
        if post.message.len() <= 120 {
            posts.extend_from_slice(post.message.as_bytes());
            posts.push(0);
        }
    }
    [posts, words].concat()
}

/// Common words and how they follow each other, the most likely first.
const WORDS: &str = "\
 the  and  to  of  in  is  for  on  with  at  we  are  you  have  it  that  be  not  this  from  by  will  can  they
I'm  I'll  we're  we'll  don't  can't  it's  that's  there's  didn't  isn't  won't  they're  you're  let's  what's
 in the  on the  to the  at the  of the  for the  from the  with the  and the  by the  over the  into the  near the
 is the  was the  has the  have the  need the  get the  do you  are you  can you  will you  have you  did you
 will be  can be  should be  to be  has been  have been  is not  are not  do not  did not  not yet  as well as
who  what  when  where  why  how  which  How many  How long  How far  Where is  What is  Who is  When is  Is there
 our  your  their  his  her  my  its  some  any  all  more  most  other  another  same  own  such  only  just  still
 one  two  three  four  five  six  seven  eight  nine  ten  first  second  third  last  next  half  both  each  every
 here  there  now  then  today  tonight  tomorrow  yesterday  morning  evening  night  soon  later  again  always  never
 up  down  out  off  back  over  under  left  right  before  after  behind  between  around  along  across  through
 about  against  until  since  while  because  without  within  inside  outside  towards  above  below  beside  except
 going  coming  moving  waiting  looking  working  trying  getting  making  taking  using  asking  leaving  bringing
 went  came  moved  waited  looked  worked  tried  got  made  took  used  asked  left  brought  sent  received  found
 go  come  move  wait  look  work  try  get  make  take  use  ask  leave  bring  send  need  want  know  think  see
 time  day  hour  minutes  min  hours  days  week  people  person  team  group  unit  man  men  woman  children  family
 vehicle  vehicles  truck  car  road  bridge  river  town  city  building  house  door  gate  wall  field  hill  forest
 north  south  east  west  northeast  northwest  southeast  southwest  km  metres  position  location  area  side  line
 message  report  request  support  status  check  confirm  contact  update  change  plan  order  task  move out  stand by
 water  food  fuel  power  radio  battery  medical  supply  spare  repair  damage  broken  ready  complete  enough  empty
 good  bad  new  old  big  small  long  short  high  low  early  late  fast  slow  clear  open  closed  possible  sure
 please  thanks  thank you  sorry  yes  no  ok  okay  well  maybe  probably  already  really  very  too  also  even
000 100 200 300 400 500 600 700 800 900 050 150 250 350 450 550 650 750 850 950 025 075 125 175 225 275
0000 0100 0200 0300 0400 0500 0600 0700 0800 0900 1000 1100 1200 1300 1400 1500 1600 1700 1800 1900 2000 2100 2200 2300
0030 0130 0230 0330 0430 0530 0630 0730 0830 0930 1030 1130 1230 1330 1430 1530 1630 1730 1830 1930 2030 2130 2230 2330
tion ment ness able ible ing ings ed ers est ful less ally ated ation ations ence ance ight ough ould eral ical ious
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::posts::talk;

    fn committed() -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../src/wire/dictionary/chat.txt")).unwrap()
    }

    #[test]
    fn the_committed_text_is_what_the_command_writes() {
        assert!(
            committed() == text(),
            "run `scripts/bench dictionary` and raise wire::frame::PROTOCOL after a release"
        );
    }

    /// What is measured with the dictionary did not make it.
    #[test]
    fn the_vocabularies_are_disjoint() {
        let committed = String::from_utf8(committed()).unwrap().to_lowercase();
        for phrase in talk::own_phrases() {
            assert!(!committed.contains(&phrase.to_lowercase()), "`{phrase}` is in the dictionary");
        }
    }
}
