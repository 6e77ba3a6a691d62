#include "pace.h"

#include <algorithm>
#include <utility>

namespace torchy {

void Pace::begin(Time now) {
  if (now - std::exchange(last_, now) < kPause) return;
  wake();
  spell_ = Spell();
}

bool Pace::begin_trial(Time now) {
  const bool soon = now - std::exchange(last_, now) <= kMost;
  if (!soon) put_off();
  return tries_;
}

void Pace::put_off() {
  tries_ = false;
  spell_ = Spell();
  interval_ = std::min(2 * interval_, kMostSpells);
  until_trial_ = interval_;
}

bool Pace::end(Time now, Piece piece) {
  const auto passed = now - std::exchange(last_, now);
  if (resting_ > 0) {
    --resting_;
    return false;
  }
  spell_.time += passed;
  ++spell_.pieces;
  worst_ = std::max(worst_, piece);
  if (tries_) {
    const bool slower = spell_.time > recorded_.time;
    return (slower || spell_.pieces == recorded_.pieces) && judge();
  }
  const bool enough = spell_.time >= (spell_.pieces < kEnoughPieces ? kEnoughOfFew : kEnough);
  if (!enough) return false;
  recorded_ = std::exchange(spell_, Spell());
  const Piece worst = std::exchange(worst_, Piece::kSteady);
  disturbed_ = worst == Piece::kSteady
                   ? 0
                   : disturbed_ + (worst == Piece::kNew ? kNewSpell : kSettlingSpell);
  if ((disturbed_ > 0 && disturbed_ < kPatience) || recorded_.time > kMost) return false;
  tries_ = --until_trial_ <= 0;
  return false;
}

// Ends a trial; returns whether there have been enough, and they were faster.
bool Pace::judge() {
  tries_ = false;
  worst_ = Piece::kSteady;
  const Spell trial = std::exchange(spell_, Spell());
  const bool faster = trial.rate() < kFaster * recorded_.rate();
  trials_ += trial;
  beside_ += recorded_;
  wins_ = faster ? wins_ + 1 : 0;
  until_trial_ = 1;
  const bool enough = ++count_ >= kEnoughTrials || trial.rate() > kClearlySlower * recorded_.rate();
  const bool rests =
      wins_ >= kEnoughWins || (enough && trials_.rate() < kFasterOnAverage * beside_.rate());
  if (!rests && !enough) return false;  // goes on
  pays_ = !rests;
  count_ = 0;
  trials_ = beside_ = Spell();
  if (pays_) {
    wins_ = 0;
    interval_ = std::min(2 * interval_, kMostSpells);
    until_trial_ = interval_;
  } else {
    wins_ = kEnoughWins - 1;  // one more trial decides the next time
    resting_ = rest_;
    rest_ = std::min(2 * rest_, kMostPieces);
  }
  return rests;
}

}  // namespace torchy
