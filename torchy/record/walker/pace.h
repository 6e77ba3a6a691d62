// Whether recording pays, found out by trial: the same work is recorded for a while and run at once
// for a while, by turns, and timed. No model of what a program costs is as good as that: how long
// an op takes depends on all that runs around it.
//
// Three words: a session *naps* while its own ops run at once in a trial, though they arrive; it
// *sleeps* when they do not arrive any more; it *rests* if it sleeps from its beginning, since
// others that began at the same place did not pay, or as a trial of that.
#pragma once

#include <chrono>
#include <cstdint>

namespace torchy {

// What a piece of work has been like.
enum class Piece {
  kSteady,    // all that it flushed were repeats, as they will be
  kSettling,  // some had been met before; a plan or a kernel is still to come
  kNew,       // some had not
};

// Of pieces of work that are alike: the sessions that begin at one place of the program, or what
// comes between two looks at a value within a session.
class Pace {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // Whether the next piece is to be run at once: as a trial, or since that was faster.
  bool runs_now() const { return tries_ || rests(); }

  // Whether it has been found out that running at once is faster.
  bool rests() const { return resting_ > 0; }

  // A trial begins once what was pending has been computed, which is no piece of it. False if that
  // took so long that trials are too dear here: none for a while.
  bool begin_trial(Time now);

  // A trial cannot begin: it is tried again after twice as long as the last time.
  void put_off();

  // What comes next is recorded, whatever has been found out.
  void wake() {
    resting_ = 0;
    tries_ = false;
  }

  // A piece begins, and the next one where it ends. After a pause, as between cells that somebody
  // runs by hand, it is none of those before.
  void begin(Time now);

  // The session has ended whose pieces they are: a pause begins, however long ago the last one was.
  void leave(Time now) { last_ = now; }

  // A piece has ended. Returns whether running at once has turned out to be faster.
  bool end(Time now, Piece piece);

  // Whether recording was faster in the last trial.
  bool pays() const { return pays_; }

  // Shorter sessions are compared as a whole only.
  static constexpr auto kLong = std::chrono::milliseconds(5);
  // A spell that takes longer is too dear to be run another way.
  static constexpr auto kMost = std::chrono::milliseconds(50);

 private:
  struct Spell {
    std::chrono::nanoseconds time{0};
    int64_t pieces = 0;

    double rate() const { return static_cast<double>(time.count()) / static_cast<double>(pieces); }
    void operator+=(const Spell& other) {
      time += other.time;
      pieces += other.pieces;
    }
  };

  bool judge();

  // A spell that is recorded is so long; one of a few pieces only, longer.
  static constexpr auto kEnough = std::chrono::milliseconds(3);
  static constexpr auto kEnoughOfFew = std::chrono::milliseconds(12);
  static constexpr auto kPause = std::chrono::milliseconds(20);
  static constexpr int64_t kEnoughPieces = 4;
  // Spells with new pieces are not compared with; but where so many came in a row, that is what the
  // program is like. What settles is more likely to come to an end.
  static constexpr int kPatience = 256, kNewSpell = 8, kSettlingSpell = 1;
  // Running at once must have been faster so many times in a row, by so much; or on the average of
  // more trials, of pieces that are not quite alike.
  static constexpr int kEnoughWins = 3, kEnoughTrials = 8;
  static constexpr double kFaster = 0.98, kFasterOnAverage = 0.95;
  static constexpr double kClearlySlower = 1.2;  // one such trial will do
  static constexpr int64_t kMostSpells = 4096, kMostPieces = 4096;

  Time last_;
  Spell spell_, recorded_;        // now; the last one that was recorded
  Piece worst_ = Piece::kSteady;  // of this spell
  int disturbed_ = 0;             // by spells in a row
  bool tries_ = false, pays_ = false;
  int wins_ = 0, count_ = 0;                // of trials: in a row; in all since it was decided
  Spell trials_, beside_;                   // all of them, and what was recorded in between
  int64_t until_trial_ = 1, interval_ = 4;  // spells
  int64_t resting_ = 0, rest_ = 64;         // pieces
};

}  // namespace torchy
