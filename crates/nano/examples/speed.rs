#![allow(clippy::print_stdout, missing_docs)]
use rolegraft_nano::{build,dialogues::{dialogue,Member},tokenizer};
use rolegraft_trajectory::Seed;
fn main(){
  let dir=std::path::PathBuf::from(std::env::args().nth(1).unwrap());
  let t=tokenizer::train(Seed(1)).unwrap();
  for m in Member::ALL { for i in 0..3 { let d=dialogue(m,Seed(1),i); let e=tokenizer::encode(&t,&d).unwrap(); println!("--- {} {} tokens", m.id(), e.len()); for x in &d {println!("{}: {}",x.role.as_str(),x.content);} } }
  let start=std::time::Instant::now();
  let mut avg=0.0; let mut n=0u64; let mut first=None;
  let r=build::build(&dir,Seed(1),&mut |p|{ let f=*first.get_or_insert(p.tokens); avg=if avg==0.0{p.loss}else{0.95*avg+0.05*p.loss}; n+=1; if n%25==0{println!("{} {} loss {:.4} avg {:.4} {:.0} tok/s",p.member.id(),p.tokens,p.loss,avg,(p.tokens as f64-f as f64)/start.elapsed().as_secs_f64());} true});
  println!("{r:?}");
}
