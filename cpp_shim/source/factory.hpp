// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a plugin must tell the factory: one class, processor and controller in one object.

#pragma once

#include "public.sdk/source/vst/vsteditcontroller.h"

namespace factory {

extern const char* const kName;
extern const char* const kVendor;
extern const char* const kVersion;

Steinberg::FUID classId();
Steinberg::Vst::EditController* create();

}  // namespace factory
