from .command import exit_code as exit_code, parse as parse, start as start
from .flags import (
    Section as Section,
    Sections as Sections,
    define_sections as define_sections,
    result_values as result_values,
    section_flags as section_flags,
    section_values as section_values,
    sections_from_flags as sections_from_flags,
    user_sentence as user_sentence,
)
