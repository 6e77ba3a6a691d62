#include "codes.h"

namespace torchy {

std::string codes_as_text() {
#define TORCHY_TELL(name, number) " " #name "=" #number
#define TORCHY_TELL_FIELD(name) " " #name
  return "Ask" TORCHY_ASK(TORCHY_TELL)                    //
      "\nReason" TORCHY_REASON(TORCHY_TELL)               //
      "\nRepeated" TORCHY_REPEATED(TORCHY_TELL)           //
      "\nClaim" TORCHY_CLAIM(TORCHY_TELL)                 //
      "\nOpClass" TORCHY_OP_CLASS(TORCHY_TELL)            //
      "\nLayoutRule" TORCHY_LAYOUT_RULE(TORCHY_TELL)      //
      "\nSessionMode" TORCHY_SESSION_MODE(TORCHY_TELL)    //
      "\nSlotFlag" TORCHY_SLOT_FLAG(TORCHY_TELL)          //
      "\nMode" TORCHY_MODE(TORCHY_TELL)                   //
      "\nRefusal" TORCHY_REFUSAL(TORCHY_TELL)             //
      "\nScriptId" TORCHY_SCRIPT_ID(TORCHY_TELL)          //
      "\nSessionPlace" TORCHY_SESSION_PLACE(TORCHY_TELL)  //
      "\nWhyNow" TORCHY_WHY_NOW(TORCHY_TELL)              //
      "\nCounters" TORCHY_COUNTERS(TORCHY_TELL_FIELD)     //
      "\nRecord" TORCHY_RECORD(TORCHY_TELL_FIELD) TORCHY_RECORD_ARRAYS(TORCHY_TELL_FIELD) "\n";
#undef TORCHY_TELL
#undef TORCHY_TELL_FIELD
}

}  // namespace torchy
